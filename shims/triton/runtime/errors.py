"""Errors that callers of kernels catch; nothing here raises them."""

from __future__ import annotations


class OutOfResources(Exception):
    """A kernel needs more shared memory or registers than the device has."""
