"""Whether this host can do its part: each look is a list of findings, with what to do about them.

May import ``workspace``, ``corpus``, ``ledger`` and ``engines``.
"""
