"""The sequences carried out by the plain models of torch's allocators, and by models with one rule changed."""

from __future__ import annotations

import inspect
import sys
from types import ModuleType
from typing import Any

from patcher.calibration import sequences
from tests.simulator import mps_allocator, mps_allocator_2_14

MODELS: dict[str, ModuleType] = {"2.13": mps_allocator, "2.14": mps_allocator_2_14}
WORKING_SET, LONGEST = 5726633984, 4294967296
"""Of an M1 with 8 GB: what Metal recommends, and its longest buffer; in bytes."""

Step = tuple[str, int, int, bool]


def carried_out(case: str, model: ModuleType) -> list[Step]:
    """Of each step its text, bytes allocated, bytes of the driver, and whether it was refused."""
    device = {"recommended_max_memory": WORKING_SET}
    low = float(next(iter(sequences.variables(case, device).values()), 1.4))
    allocator = model.Allocator(WORKING_SET, LONGEST, 1.7, low)
    live: dict[str, int] = {}
    found = []
    for step in sequences.SEQUENCES[case]:
        refused = False
        try:
            _carry_out(step, allocator, live)
        except model.OutOfMemory:
            refused = True
        stats = allocator.stats()
        found.append((step, stats["allocated"], stats["driver"], refused))
    return found


def _carry_out(step: str, allocator: Any, live: dict[str, int]) -> None:
    """A name that is given again lets its tensor go when the new one is there."""
    name, _, length = step.partition(" = ")
    word, _, argument = step.partition(" ")
    if length:
        number = allocator.allocate(sequences.length_of(length))[0]
        if name in live:
            allocator.free(live[name])
        live[name] = number
    elif word == "free" and argument in live:
        allocator.free(live.pop(argument))
    elif word == "empty":
        allocator.empty_cache()
    elif word == "allow":
        allocator.set_high_watermark(sequences.length_of(argument) / WORKING_SET)


def changed(model: ModuleType, rule: str, instead: str) -> ModuleType:
    """The model with one piece of its text changed, everywhere."""
    source = inspect.getsource(model)
    assert rule in source, rule
    made = ModuleType(f"{model.__name__}_changed")
    sys.modules[made.__name__] = made  # dataclasses look there
    exec(source.replace(rule, instead), made.__dict__)  # noqa: S102 - the model is ours
    return made
