"""Whether Unsloth prepares data sets in worker processes."""

from __future__ import annotations


def _workers_unusable_reason() -> str | None:
    """Why it does not: the answer of a Mac."""
    return "forking is not safe on a Mac, and this one is simulated"
