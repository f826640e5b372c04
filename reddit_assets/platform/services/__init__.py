"""What sensors and the nightly job do: discover, reconcile, rescan, watch over runs.

Imports what ``platform`` may import.
"""
