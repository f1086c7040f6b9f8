"""How one request crosses. Knows nothing of how tokens are obtained.

What may live here: pure rules (`routes`: which upstream; `guard`: who may ask, and for what; `headers`: what crosses
in each direction; `limits`), the language of HTTP/1.1 (`messages`, `fields`, `chunked`), a client's connection
(`client`) and all of them (`server`), what is decided about a request (`handler`), its way through its route
(`crossing`) with its `body`, the `upstream` side, what bearward says itself (`answers`), a `tunnel`, and a route's
numbers (`tally`).
"""
