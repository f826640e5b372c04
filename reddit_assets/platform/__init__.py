"""Dagster only: partitions, assets, mapping, sensors, schedules, checks and the instance sink.

May import ``workspace``, ``ledger``, ``ingest``, ``corpus``, ``engines.clustering.params``,
``engines.vectors``, ``settings`` and ``errors``. Nothing here reads the disk, Redis or Dagster's
storage when it is imported.
"""
