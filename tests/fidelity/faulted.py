"""Compares the simulated Mac with a calibration of itself, as it is and with one fault at a time.

Run by the tests, in a process of its own: ``python -m tests.fidelity.faulted FOLDER`` writes what differs to
``FOLDER/outcomes.json``. Parts run in this process, where faults can be switched on, but for those whose cases need a
process each.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from patcher.calibration import command, device, here, runner
from patcher.calibration.facts import Facts
from patcher.calibration.parts import BY_NAME, Part
from patcher.calibration.record import COMPLETE, PartRecord, Record
from patcher.macs import machine
from patcher.simulator.faults import inject
from patcher.simulator.metal import library
from tests.fidelity import against

MAC = "M1 8GB, torch 2.13"

CASES = {
    "allocator": ["ranges", "varying lengths", "longest buffer"],
    "shaders": [
        *("threadgroup memory: 32768 bytes", "threadgroup memory: 32772 bytes", "threads: 1025 in a group"),
        *("language: double", "bfloat: rounding", "arguments: None"),
    ],
    "hazards": [
        *("baddbmm with beta=0", "copy into a view", "layer_norm of rows that vary little", "unique of large integers"),
        *("padded rows", "gradient of a sum", "autocast('cuda')"),
    ],
    "timings": ["launch of an addition", "device to host, 64 MiB"],
    "operators": [
        *(
            "add forward float32",
            "baddbmm forward float32",
            "linalg.eig forward float32",
            "multinomial forward float32",
        ),
        *("nn.functional.linear forward float32", "nn.functional.linear gradient float32", "sum gradient float16"),
        *(
            "nn.functional.layer_norm forward float32",
            "cat forward int64",
            "argsort forward float32",
            "nn.functional.linear forward float16",
            "nn.functional.dropout forward float32",
        ),
    ],
}
"""Of each part cases that are run: some with a fault that they show, and some that no fault may touch."""


class InThisProcess:
    """Stands for `runner.Cases`."""

    def __new__(cls, part: Part, simulated: Facts | None, answers: Mapping[str, Any]) -> Any:
        return REAL(part, simulated, answers) if part.fresh else super().__new__(cls)

    def __init__(self, part: Part, simulated: Facts | None, answers: Mapping[str, Any]) -> None:
        self._part = importlib.import_module(part.module)
        self.names = self._part.cases()

    def __enter__(self) -> InThisProcess:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, case: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(json.dumps(self._part.run(case)))
        return found


REAL = runner.Cases


def longer_tensors() -> contextlib.AbstractContextManager[Any]:
    """An allocator that takes a MiB more for tensors from 300 MiB on."""
    part = dataclasses.replace(BY_NAME["allocator"], module="tests.fidelity.longer_tensors")
    return mock.patch.dict(BY_NAME, allocator=part)


FAULTS: dict[str, Any] = {
    "none": contextlib.nullcontext,
    "baddbmm-beta-zero": lambda: inject("baddbmm-beta-zero"),
    "gapped-copy": lambda: inject("gapped-copy"),
    "layer-norm-small-variance": lambda: inject("layer-norm-small-variance"),
    "unique-large-integers": lambda: inject("unique-large-integers"),
    "sort-many-columns": lambda: inject("sort-many-columns", sizes={"sort-many-columns": 2}),
    "cat-large-output": lambda: inject("cat-large-output", sizes={"cat-large-output": 4}),
    "more threadgroup memory": lambda: mock.patch.object(library, "THREADGROUP_BYTES", 65536),
    "longer tensors": longer_tensors,
}


IN_THIS_PROCESS = ("shaders", "hazards", "operators")
WITH_PROCESSES = ("none", "longer tensors")
"""With these the parts whose cases take a process each, and times, are compared as well."""


def main() -> None:
    torch.set_num_threads(1)
    here.simulate(command.facts_of(machine.detect(MAC)))
    answers = device.run("device")
    facts = Facts.from_dict(answers["facts"])
    found = {}
    with (
        mock.patch.object(runner, "Cases", InThisProcess),
        mock.patch.object(runner, "ask_device", lambda _: answers),
    ):
        theirs = Record(facts, {"recommended_max_memory": answers["recommended_max_memory"]})
        for name, cases in CASES.items():
            results = against.run(BY_NAME[name], cases, facts, answers)
            assert results.keys() == set(cases), set(cases) - results.keys()
            theirs.parts[name] = PartRecord(len(cases), results, COMPLETE)
        for name, fault in FAULTS.items():
            parts = theirs.parts if name in WITH_PROCESSES else {part: theirs.parts[part] for part in IN_THIS_PROCESS}
            with fault():
                found[name] = dataclasses.asdict(against.compare(dataclasses.replace(theirs, parts=parts)))
    (Path(sys.argv[1]) / "outcomes.json").write_text(json.dumps(found, indent=1))
    print(json.dumps(found, indent=1), file=sys.stderr)


if __name__ == "__main__":
    main()
