"""How we come to hold a fresh token. Knows nothing of routes, requests or proxies.

What may live here: values (`credential`, `token`, `failure`), pure functions over them (`recipe`: what to ask;
`answer`: what was said; `schedule`: when to ask again), the one place that calls a token endpoint (`fetcher`), the
refresh token and its session (`session`), the life of one token (`keeper`), and all tokens of a credential at one
token endpoint (`source`).
"""
