"""Embed and cluster a very large text corpus, steered from Dagster.

Rooms and the direction of imports: ``docs/architecture.md``.
"""

__version__ = "0.2.0"
