"""Results → Dagster: one description of an event, one loop, two ways (``rest``, ``instance``).

``rest`` and what it needs (``drain``, ``metadata``, ``assets``) import no dagster: worker hosts
have none. The rest imports what ``platform`` may import.
"""
