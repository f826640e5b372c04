"""The Redis queue: enqueue, claim, lease, acknowledge, reap, dead letters, outbox.

Knows nothing of models or files' contents. May import ``corpus``, ``settings`` and ``errors``.
"""
