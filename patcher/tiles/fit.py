"""Whether a kernel runs with certain arguments, and where: what an autotuner's configurations are compared by."""

from __future__ import annotations

import enum


class Fit(enum.IntEnum):
    """More is better."""

    NOT_AT_ALL = 0
    """No program can be made."""
    ELSEWHERE = 1
    """On torch operators, where Metal is asked for."""
    AS_ASKED = 2
    """On the back end that is asked for."""
