"""`python -m bearward`."""

from .cli import program

program()
