"""Runs torch's operator database over the simulated Mac, and says where it does not do what torch expects of a Mac."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from tests.fidelity.agreement import agrees, compare, listed, table
from tests.fidelity.database import Case
from tests.fidelity.expectations import SKIPPED
from tests.fidelity.runner import Result, Runner


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fidelity", description=__doc__)
    parser.add_argument("--sample", type=int, help="every Nth case")
    parser.add_argument("--all", action="store_true", help="every case (the default)")
    parser.add_argument("--shard", default="1/1", help="part i of n, e.g. 1/4")
    parser.add_argument("--samples", type=int, help="the most sample inputs of a case")
    parser.add_argument("--match", help="only operators whose name has this text")
    parser.add_argument("--again", type=Path, help="only what disagreed in the results in this file")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    options = parser.parse_args()
    results: list[Result] = []
    with Runner() as runner:
        cases = _chosen(runner.cases, options)
        for result in runner.run(cases, options.samples):
            results.append(result)
            if options.json and len(results) % 50 == 0:
                _write(options.json, results)
        complete = len(cases) == len(runner.cases)
    if options.json:
        _write(options.json, results)
    print(table(results))
    agreement = compare(results, listed(), complete)
    print(f"{agreement.agreeing} of {agreement.compared} cases agree: {agreement.percent:.2f}%")
    for result in agreement.unlisted:
        print(
            f"not listed: {result.case}: expected {result.expected} ({result.source}), {result.observed} {result.error}"
        )
    for case in agreement.stale:
        print(f"listed, but agrees or does not exist: {case}")
    return 1 if agreement.unlisted or agreement.stale else 0


def _chosen(cases: list[Case], options: argparse.Namespace) -> list[Case]:
    if options.match:
        cases = [case for case in cases if options.match in case.op]
    if options.again:
        before = {result.case for result in _read(options.again) if result.expected != SKIPPED and not agrees(result)}
        cases = [case for case in cases if case in before]
    part, parts = map(int, options.shard.split("/"))
    return cases[:: options.sample or 1][part - 1 :: parts]


def _read(path: Path) -> list[Result]:
    return [Result(**fields) for fields in json.loads(path.read_text())]


def _write(path: Path, results: list[Result]) -> None:
    path.write_text(json.dumps([dataclasses.asdict(result) for result in results], indent=0))


if __name__ == "__main__":
    sys.exit(main())
