"""Vectors to clusters: reduction, HDBSCAN, themes, identities, keywords and maps.

May import ``settings`` and ``errors``. Imports neither Dagster, nor the queue, nor
the embedding room. Heavy libraries are imported when they are used.
"""

from __future__ import annotations

__all__: list[str] = []
