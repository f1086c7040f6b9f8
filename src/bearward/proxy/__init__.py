"""How one request crosses. Knows nothing of how tokens are obtained.

What may live here: pure rules (`routes`: which upstream; `guard`: who may ask, and for what; `headers`: what crosses
in each direction), the one place that opens connections to data centers (`upstream`), the way of a request from top
to bottom (`handler`, with its `body`), and the aiohttp server in front (`server`).
"""
