"""A parent that holds leases and a child that computes; progress; metrics.

Imports ``reporting``, ``jobqueue``, ``embedding``, ``clustering``, ``catalog``, ``settings`` and
``errors``; never dagster. Only the child imports the engines.
"""
