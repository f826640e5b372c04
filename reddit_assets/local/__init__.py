"""Everything on one machine: embedded servers, supervised child processes, the maps, the sample.

May import ``workspace``, ``figures``, ``ledger``, ``corpus``, ``engines.host``, ``settings`` and
``errors``. The other parts run as child processes, so neither Dagster nor torch is imported here.
"""
