"""The NLS WebSocket protocol, without I/O, clock or randomness.

A driver (``app/api``) owns the socket. It hands frames, the time and what the speech services
report to a :class:`app.nls.connection.Connection`, and carries out the outputs that come back
(``app/nls/outputs.py``). One file per NLS namespace, one class in it, one table that names them
(``app/nls/namespaces.py``). ``status.py`` and ``parameters.py`` are shared with the REST doors.
"""
