"""Dagster only: partitions, assets, mapping, sensors, schedules, checks and the instance sink.

May import ``reporting``, ``jobqueue``, ``catalog``, ``clustering.params``, ``settings`` and
``errors``. Nothing here reads the disk, Redis or Dagster's storage when it is imported.
"""
