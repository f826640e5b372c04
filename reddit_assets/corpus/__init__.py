"""What is on disk: names, paths and keys; scans; fingerprints; reading and writing the files.

The only room that turns partition keys into paths. Of the project it imports ``settings`` and
``errors`` alone.
"""
