"""Runs cases in a process of their own, which a faulty operator may bring down.

``python -m tests.fidelity.worker CORPUS RELEASE FD`` reads cases from its input, a JSON object a line, and writes one
line a case to the file descriptor FD; its first line has all cases of the corpus.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys

import torch

from patcher.macs.mac import parse
from patcher.simulator import start
from tests.fidelity.cases import Case
from tests.fidelity.corpora import corpus_class
from tests.fidelity.measure import observe
from tests.fidelity.releases import Release

MAC = "M3 Max 36GB"


def main(name: str, release: str, descriptor: int) -> None:
    torch.set_num_threads(1)
    mac = parse(f"{MAC}, torch {release}")
    device = start(mac)
    device.set_products("native")  # the corpora compare with torch's CPU kernels, on any host
    corpus, expected = corpus_class(name)(mac), Release(release)
    corpus.other = expected.other
    with os.fdopen(descriptor, "w") as answers:
        _answer(answers, {"cases": [dataclasses.astuple(case) for case in expected.cases(corpus)]})
        for line in sys.stdin:
            request = json.loads(line)
            case = Case(*request["case"])
            _answer(answers, dataclasses.asdict(expected.expectation(corpus, case)))
            _answer(answers, dataclasses.asdict(observe(corpus.outcomes(case), request["limit"])))


def _answer(answers: object, value: object) -> None:
    print(json.dumps(value), file=answers, flush=True)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
