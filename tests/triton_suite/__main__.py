"""Runs Triton's language tests and says why what fails does:

    python -m tests.triton_suite REPOSITORY OUT [--interpreter] [--device cpu] [--told] [FILE...]

REPOSITORY is a checkout of Triton's. Each file of ``python/test/unit/language``, or each FILE, runs in a process of its
own, and what becomes of its tests goes to ``OUT/FILE.jsonl``; ``--told`` runs nothing and reads what is there. With
``--interpreter`` the tests run in real Triton's interpreter, as what they are compared with. The exit code is 1 where a
test fails for no reason that ``reasons.toml`` has.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tests.oracle.client import TRITON
from tests.process import ROOT, run_python
from tests.triton_suite.account import Account, read

LANGUAGE_TESTS = Path("test", "unit", "language")


def main(arguments: list[str]) -> int:
    """Runs, and prints the account."""
    parser = argparse.ArgumentParser(prog="python -m tests.triton_suite")
    parser.add_argument("repository", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("files", nargs="*")
    parser.add_argument("--interpreter", action="store_true")
    parser.add_argument("--device", default="mps")
    parser.add_argument("--told", action="store_true")
    asked = parser.parse_args(arguments)
    repository = asked.repository.resolve()
    files = asked.files or sorted(file.name for file in (repository / "python" / LANGUAGE_TESTS).glob("test_*.py"))
    if not files:
        parser.error(f"{repository} has no tests of the language")
    asked.out.mkdir(parents=True, exist_ok=True)
    for file in files if not asked.told else ():
        run(repository, file, asked.out.resolve() / f"{file}.jsonl", asked.device, asked.interpreter)
    account = Account(read(asked.out / f"{file}.jsonl" for file in files))
    print(account)
    return 1 if account.unknown else 0


def run(repository: Path, file: str, out: Path, device: str, interpreter: bool) -> None:
    """Runs one file's tests; what pytest says is not kept."""
    folder = repository / "python" / "test"
    options = ["-q", "--tb=no", "-p", "no:cacheprovider", "-p", "tests.triton_suite.plugin"]
    where = ["-c", os.devnull, f"--rootdir={folder}", f"--confcutdir={folder}", folder.parent / LANGUAGE_TESTS / file]
    mac = ["--simulated-mac=1", "--simulated-mac-patch"]
    shown = ["--device", "cpu"] if interpreter else [*mac, "--device", device]
    out.unlink(missing_ok=True)
    run_python(
        "-m",
        "pytest",
        *options,
        *shown,
        *where,
        timeout=None,
        check=False,
        cwd=folder,
        PYTHONPATH=os.pathsep.join([str(ROOT), *([str(TRITON)] if interpreter else [])]),
        TRITON_REPO=str(repository),
        TRITON_SUITE_OUT=str(out),
        TRITON_INTERPRET="1" if interpreter else "0",
        PATCHER_TRITON=os.environ.get("PATCHER_TRITON", "torch"),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
