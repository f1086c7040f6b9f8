"""`python -m bearward`."""

from .cli import main

main(prog_name="bearward")
