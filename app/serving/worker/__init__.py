"""An engine worker: one process, one device, one engine, many tasks.

``__main__`` starts it, ``server`` owns the connections of the API processes, ``recognition`` and
``synthesis`` run the engine for them.
"""
