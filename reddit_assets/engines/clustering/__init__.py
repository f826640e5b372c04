"""Vectors to clusters: reduction, HDBSCAN, themes, identities, keywords and maps.

May import ``engines.host``, ``engines.vectors``, ``settings`` and ``errors``; never embedding, the
ledger, the worker or Dagster. Heavy libraries are imported when they are used.
"""

from __future__ import annotations

__all__: list[str] = []
