"""Arrays in, arrays out: embedding and clustering. No corpus paths, no queue.

Imports ``settings`` and ``errors`` alone. ``host`` says what this machine computes with;
``vectors`` says what counts as a vector of length one.
"""
