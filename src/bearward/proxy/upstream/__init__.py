"""The only code that opens connections to data centers, and that knows how they frame their answers.

What may live here: `answer`, which takes one answer apart (pure); `connection`, one connection and the exchange on
it; `dial`, how a connection comes to be (names, TLS, an egress proxy); `pool`, which connections are kept and shared.
"""
