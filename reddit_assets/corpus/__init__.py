"""What is on disk: names, paths and keys; scans; fingerprints; reading and writing the files.

The only room that turns partition keys into paths. Imports ``settings`` and ``errors``, nothing else
of the project.
"""
