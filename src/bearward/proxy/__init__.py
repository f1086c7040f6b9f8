"""How one request crosses. Knows nothing of how tokens are obtained.

What may live here: pure rules (`routes`: which upstream; `guard`: who may ask, and for what; `headers`: what crosses
in each direction), the request's `body`, the one place that opens connections to data centers (`upstream`), what
bearward says itself (`answers`), a request's way through its route (`crossing`), the one that takes every request
(`handler`), and the aiohttp server in front (`server`).
"""
