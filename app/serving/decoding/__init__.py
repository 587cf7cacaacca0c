"""The decode process: the only one that runs codecs over what clients send. A crash of it costs the
one request that caused it (``client.py``)."""
