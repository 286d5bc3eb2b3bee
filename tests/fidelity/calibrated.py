"""The part of a calibration that is torch's operator database, on the device at hand: a real Mac's or a simulated one.

`patcher.calibration.worker` runs it. On a real Mac it does without the simulator.
"""

from __future__ import annotations

import functools
from typing import Any

from patcher.calibration import here
from patcher.calibration.words import without_paths
from patcher.macs import machine
from tests.fidelity.cases import Case
from tests.fidelity.corpora.operators import Operators
from tests.fidelity.measure import REFUSED, observe

SAMPLES = 3
"""Sample inputs of a case: all of them would take a quarter of an hour."""


UNDEFINED = ("as_strided.partial_views", "empty", "new_empty", "resize_", "resize_as_")
"""Beginnings of operators that give memory as they find it: nothing can be said of their results."""


@functools.cache
def _corpus() -> Operators:
    simulated = here.simulated()
    if simulated is None:
        return Operators(machine.detect())
    from patcher.simulator import start

    start().set_products("native")  # compared with torch's CPU kernels, on any host
    return Operators(simulated)


@functools.cache
def _cases() -> dict[str, Case]:
    found = (case for case in _corpus().cases() if not case.name.startswith(UNDEFINED))
    return {f"{case.name} {case.test} {case.dtype}": case for case in found}


def cases() -> list[str]:
    """Operator, test and dtype, with spaces between them."""
    return list(_cases())


def run(case: str) -> dict[str, Any]:
    """``outcome`` is ``"equal"``, ``"close"``, ``"differs"`` or ``"refused"``, as `tests.fidelity.measure` has them.

    Of the last two ``text`` says how, and of the last ``kind`` is the exception's class.
    """
    seen = observe(_corpus().outcomes_with_other_numbers(_cases()[case]), SAMPLES)
    if not seen.error:
        return {"outcome": seen.outcome}
    kind, _, text = seen.error.partition(": ") if seen.outcome == REFUSED else ("", "", seen.error)
    return {"outcome": seen.outcome, **({"kind": kind} if kind else {}), "text": without_paths(text)[:300]}
