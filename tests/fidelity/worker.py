"""Runs cases in a process of their own, which a faulty operator may bring down: `python -m tests.fidelity.worker FD`.

It reads cases from its input, one JSON list a line, and writes one line a case to the file descriptor FD.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys

import torch

from patcher.simulator import start
from tests.fidelity.database import Case, Database
from tests.fidelity.expectations import expectation
from tests.fidelity.measure import observe

MAC = "M3 Max 36GB, torch 2.13"


def main(descriptor: int) -> None:
    torch.set_num_threads(1)
    device = start(MAC)
    device.set_products("native")  # the database compares with torch's CPU kernels, on any host
    database = Database(device.mac.macos or (15, 5))
    with os.fdopen(descriptor, "w") as answers:
        _answer(answers, {"cases": [dataclasses.astuple(case) for case in database.cases()]})
        for line in sys.stdin:
            request = json.loads(line)
            case = Case(*request["case"])
            expected = expectation(database, case)
            _answer(answers, {"expected": expected.verdict, "source": expected.source})
            observed = observe(database, case, request["limit"])
            _answer(answers, dataclasses.asdict(observed))


def _answer(answers: object, value: object) -> None:
    print(json.dumps(value), file=answers, flush=True)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(int(sys.argv[1]))
