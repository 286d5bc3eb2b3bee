"""Plants the fault that each probe of ``verify_apple.py`` looks for, and writes how the probe ended.

Run by the tests, in a process of its own: ``python -m tests.verify.faults FOLDER`` writes ``FOLDER/outcomes.json``. The
known bugs of the mps backend are those of the simulated device; the others are put into torch's Python.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.nn import functional

from patcher import patch_for_mac
from patcher.macs import machine
from patcher.replacements.torch import concatenation, indexing
from patcher.simulator import start
from patcher.simulator.faults import FAULTS, inject
from patcher.verify import device, hazards, lookups, training
from patcher.verify.check import Check, Situation

MAC = "M1 8GB, torch 2.13"
ALSO = [("matmul-long-sum", "dW over 32767 tokens")]
"""Probes of a fault besides the one that its description names."""

BEYOND, SMALL = 2**31, 2**12
"""Faults that show beyond so many elements show beyond these few here: to their probes and to the guards as well."""

argmax = torch.argmax


def on_mps(x: torch.Tensor) -> bool:
    return x.device.type == "mps"


def off_by_a_percent(right: Any) -> Any:
    return lambda a, *rest, **named: right(a, *rest, **named) * (1.01 if on_mps(a) else 1)


def picks_another(x: Any, *rest: Any, **named: Any) -> torch.Tensor:
    return argmax(-x if on_mps(x) else x, *rest, **named)


class Inert(contextlib.nullcontext[None]):
    """An autocast that does nothing."""

    def __init__(self, *rest: Any, **named: Any) -> None:
        super().__init__()


PLANTED: dict[str, tuple[Any, str, Any]] = {
    "available": (torch.backends.mps, "is_available", lambda: False),
    "matmul": (torch.Tensor, "__matmul__", off_by_a_percent(torch.matmul)),
    "float64 refused": (torch.ops.aten.ones, "default", lambda *rest, **named: torch.zeros(1)),
    "bf16": (torch, "autocast", Inert),
    "random numbers": (torch.mps, "set_rng_state", lambda state: None),
    "memory": (torch.mps, "current_allocated_memory", lambda: 0),
    "fine-tuning in fp32": (functional, "silu", off_by_a_percent(functional.silu)),
    "greedy": (torch, "argmax", picks_another),
}


def of_the_device() -> Iterator[tuple[str, Check]]:
    """Every fault with each probe that looks for it."""
    by_name = {check.name: check for check in hazards.CHECKS}
    pairs = [(fault.name, fault.probe) for fault in FAULTS.values() if fault.probe is not None]
    yield from ((fault, by_name[probe]) for fault, probe in (*pairs, *ALSO))


def main() -> None:
    folder = Path(sys.argv[1])
    here = Situation(machine.detect(MAC), False, folder)

    def run(check: Check, *faults: str, here: Situation = here) -> tuple[str, str]:
        with inject(*faults, sizes={name: SMALL for name in faults if FAULTS[name].size == BEYOND}):
            result = check.run(here)
        return result.status.value, result.detail

    start(MAC)
    little = replace(here, machine=replace(here.machine, memory_bytes=2**31))
    too_large = {check.name: run(check, here=little) for check in lookups.CHECKS if "2^31" in check.name}
    for module, name in ((lookups, "BEYOND"), (concatenation, "MOST_ELEMENTS"), (indexing, "MOST_ELEMENTS")):
        assert getattr(module, name) == BEYOND
        setattr(module, name, SMALL)

    wrong = {f"{fault}: {check.name}": run(check, fault) for fault, check in of_the_device()}
    right = {check.name: run(check) for _, check in of_the_device()}
    patch_for_mac(simulate=MAC, strict=False)
    guarded = {f"{fault}: {check.name}": run(check, fault) for fault, check in of_the_device() if FAULTS[fault].guard}
    planted = {}
    for check in (*device.CHECKS, *training.CHECKS):
        if check.name in PLANTED:
            with mock.patch.object(*PLANTED[check.name]):
                planted[check.name] = run(check)
    assert planted.keys() == PLANTED.keys()
    outcomes = {"wrong": wrong, "right": right, "guarded": guarded, "planted": planted, "too large": too_large}
    (folder / "outcomes.json").write_text(json.dumps(outcomes))
    print(json.dumps(outcomes, indent=1), file=sys.stderr)


if __name__ == "__main__":
    logging.getLogger("patcher").setLevel(logging.ERROR)
    main()
