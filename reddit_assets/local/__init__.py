"""Everything on one machine: embedded servers, supervised child processes, the sample.

May import settings, errors, corpus and ledger. The other parts run as child processes that are
started by command line, so neither dagster nor torch is imported here.
"""
