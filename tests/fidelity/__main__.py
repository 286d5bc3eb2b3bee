"""`python -m tests.fidelity [--sample N | --all] [--shard i/n] [--samples N] [--match TEXT] [--json FILE]`"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections import Counter
from pathlib import Path

from tests.fidelity.runner import Result, all_cases, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fidelity", description=__doc__)
    parser.add_argument("--sample", type=int, help="every Nth case")
    parser.add_argument("--all", action="store_true", help="every case (the default)")
    parser.add_argument("--shard", default="1/1", help="part i of n, e.g. 1/4")
    parser.add_argument("--samples", type=int, help="the most sample inputs of a case")
    parser.add_argument("--match", help="only operators whose name has this text")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    options = parser.parse_args()
    cases = all_cases()
    if options.match:
        cases = [case for case in cases if options.match in case.op]
    cases = cases[:: options.sample or 1]
    part, parts = map(int, options.shard.split("/"))
    cases = cases[part - 1 :: parts]
    results: list[Result] = []
    for result in run(cases, options.samples):
        results.append(result)
        if options.json and len(results) % 50 == 0:
            _write(options.json, results)
    if options.json:
        _write(options.json, results)
    counts = Counter((result.expected, result.source, result.observed) for result in results)
    for (expected, source, observed), number in sorted(counts.items()):
        print(f"{number:6d}  {expected:8s} {source:28s} {observed}")
    return 0


def _write(path: Path, results: list[Result]) -> None:
    path.write_text(json.dumps([dataclasses.asdict(result) for result in results], indent=0))


if __name__ == "__main__":
    sys.exit(main())
