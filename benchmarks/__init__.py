"""Measurements of a running server: they print figures and assert nothing.

``python -m benchmarks`` takes all of them, in about three minutes; ``python -m benchmarks NAME``
one. ``--full`` takes the time that figures to publish need.
The figures of a release and what they mean are in ``docs/benchmarks.md``.

The server under test is ``funspeech serve`` in processes of its own; this process generates the
load, so its CPU time is never counted, but it shares the machine's cores with the server.
"""
