"""The Redis queue: enqueue, claim, lease, acknowledge, reap, dead letters, outbox.

Knows nothing of models or files' contents. Imports ``corpus`` (names only), ``settings`` and
``errors``.
"""
