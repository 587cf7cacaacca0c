"""An engine worker: one process, one device, one engine, many tasks.

``__main__`` starts it; ``server`` owns the connections of the API processes; ``tasks`` is what all
tasks share. Recognition is ``endpointing`` with an engine that finds the sentences itself and
``segmenting`` with any other; ``stepper`` runs the steps of both. ``synthesis`` runs a
synthesiser, a thread for each utterance.
"""
