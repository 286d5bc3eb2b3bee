"""Runs PyTorch's tests over the simulated Mac, and says where it does not do what torch expects of a Mac."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from tests.fidelity import against, corpora, releases
from tests.fidelity.agreement import Agreement, agrees, compare, has_verdict, listed, table
from tests.fidelity.cases import Case
from tests.fidelity.runner import Result, Runner, side_by_side


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fidelity", description=__doc__)
    parser.add_argument("--corpus", action="append", choices=corpora.names(), help="only this one; may be repeated")
    parser.add_argument(
        "--torch", action="append", choices=releases.known(), help="only a Mac with it; may be repeated"
    )
    parser.add_argument("--sample", type=int, help="every Nth case")
    parser.add_argument("--all", action="store_true", help="every case (the default)")
    parser.add_argument("--shard", default="1/1", help="part i of n, e.g. 1/4")
    parser.add_argument("--samples", type=int, help="the most sample inputs of a case")
    parser.add_argument("--match", help="only names that have this text")
    parser.add_argument("--again", type=Path, help="only what disagreed in the results in this file")
    parser.add_argument("--processes", type=int, default=1, help="how many run side by side, each with its cases")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument(
        "--against", type=Path, help="compare the simulated Mac with this file of verify_apple.py --calibrate instead"
    )
    options = parser.parse_args()
    if options.against:
        return against.main(options.against)
    results: list[Result] = []
    agreements: dict[tuple[str, str], Agreement] = {}
    for corpus in options.corpus or corpora.names():
        for release in options.torch or releases.known():
            agreements[corpus, release] = _run(corpus, release, options, results)
    print(table(results))
    return _report(agreements)


def _run(corpus: str, release: str, options: argparse.Namespace, results: list[Result]) -> Agreement:
    """Runs the chosen cases of a corpus, and appends their results."""
    first = len(results)
    with Runner(corpus, release) as runner:
        cases = _chosen(runner.cases, release, options)
        for result in side_by_side(runner, cases, options.processes, options.samples):
            results.append(result)
            if options.json and len(results) % 50 == 0:
                _write(options.json, results)
    if options.json:
        _write(options.json, results)
    known = {case: entry for case, entry in listed(release).items() if case.corpus == corpus}
    return compare(results[first:], known, bool(cases) and len(cases) == len(runner.cases))


def _report(agreements: dict[tuple[str, str], Agreement]) -> int:
    """Prints what agrees by corpus and release, and what is not as listed; 1 if anything is not."""
    for (corpus, release), found in agreements.items():
        if found.compared:
            print(f"{corpus}, torch {release}: {found.agreeing} of {found.compared} cases agree: {found.percent:.2f}%")
        for result in found.unlisted:
            said = f"expected {result.expected} ({result.source}), {result.observed} {result.error}"
            print(f"not listed: {result.case}: {said}")
        for case in found.stale:
            print(f"listed, but agrees or does not exist: {case}")
    return 1 if any(found.unlisted or found.stale for found in agreements.values()) else 0


def _chosen(cases: list[Case], release: str, options: argparse.Namespace) -> list[Case]:
    if options.match:
        cases = [case for case in cases if options.match in case.name]
    if options.again:
        before = {
            result.case
            for result in _read(options.again)
            if result.release == release and has_verdict(result) and not agrees(result)
        }
        cases = [case for case in cases if case in before]
    part, parts = map(int, options.shard.split("/"))
    return cases[:: options.sample or 1][part - 1 :: parts]


def _read(path: Path) -> list[Result]:
    return [Result(**fields) for fields in json.loads(path.read_text())]


def _write(path: Path, results: list[Result]) -> None:
    path.write_text(json.dumps([dataclasses.asdict(result) for result in results], indent=0))


if __name__ == "__main__":
    sys.exit(main())
