"""Our small asynchronous client: NLS WebSocket tasks (``nls.py``) and REST calls (``rest.py``).

Used by the command line, the benchmarks and the tests. It speaks the wire format only and knows
nothing of the server's inside, so it works against any NLS-compatible server.
"""
