"""Dagster only: partitions, assets, mapping, sensors, schedules, checks and the instance sink.

May import ``ledger``, ``corpus``, ``engines.clustering.params``, ``workspace``, ``settings`` and
``errors``. Nothing here reads the disk, Redis or Dagster's storage when it is imported.
"""
