"""A parent that holds leases and a child that computes; progress; metrics.

Imports ``platform.reporting``, ``ledger``, ``tasks``, ``corpus``, ``settings`` and
``errors``; never dagster. Only the child imports the engines.
"""
