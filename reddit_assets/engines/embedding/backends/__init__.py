"""Backends: one interface, one module per library, each imported only where it is opened.

May import the embedding room's model, weights and export modules; nothing else of the project.
"""

from __future__ import annotations

__all__: list[str] = []
