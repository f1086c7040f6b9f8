"""bearward: a local reverse proxy that injects bearer tokens and keeps them fresh.

What lives here: the process (`cli`, `app`), two domains that know nothing of each other (`tokens`: how we
come to hold a fresh token; `proxy`: how one request crosses), what the operator wrote (`config`) and sees
(`ops`), and below them the few words that all share (`events`, `errors`, `secret`, `clock`, `address`).
"""

__version__ = "0.1.0"
