"""Results → Dagster from hosts without Dagster: the outbox over REST.

The sink for a process beside Dagster is ``orchestration.instance_sink``. Imports ``jobqueue``,
``catalog``, ``settings`` and ``errors``.
"""
