"""Results → Dagster from hosts without Dagster: the outbox over REST.

The sink for a process beside Dagster is ``platform.reporting.instance``. The rest imports
``ledger``, ``corpus``, ``settings`` and ``errors``.
"""
