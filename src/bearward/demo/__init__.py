"""`bearward demo`: everything on this machine, to see tokens being kept fresh without an account anywhere.

What may live here: the vendor's side (`vendor`: an identity provider and data centers; knows nothing of bearward but
how it names a token), what `--once` calls and how it judges (`once`), and the composition of both with an ordinary
`App`, which goes in by an ordinary config file (`play`). Nothing else in bearward knows of the demo.
"""

from .play import demo as demo
