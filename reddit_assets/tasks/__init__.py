"""One file in, one file out: what a worker's computing process runs.

May import ``engines``, ``ingest``, ``corpus``, ``workspace``, ``ledger.job``, ``settings`` and
``errors``. Uses neither Dagster nor Redis.
"""
