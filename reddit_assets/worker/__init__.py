"""A parent that holds leases and a child that computes; progress; metrics.

May import ``workspace``, ``ledger``, ``tasks``, ``corpus``, ``platform.reporting``, ``settings``
and ``errors``; never Dagster. Only the child imports the engines.
"""
