"""Public dumps in, chain files out: parsing, cleaning, threads.

May import ``corpus``, ``engines.host``, ``settings`` and ``errors``. Knows neither Redis nor
Dagster.
"""
