"""One file in, one file out: what a worker's computing process runs.

Imports ``engines``, ``corpus``, ``settings`` and ``errors``; never Dagster, never Redis.
"""
