"""Checks of one machine, real or simulated, for ``verify_apple.py``.

A check is a function that returns what it found or raises `Failed`. Checks run in child processes, one per group, so
that one which aborts the process costs its group and not the rest.
"""
