"""Tries releases of Unsloth, each with the libraries of its day, and shows what came of it:

    python -m tests.versions FOLDER [--again] [NAME ...]
    python -m tests.versions FOLDER --table

A name is that of a file in ``requirements/versions``; without one, all are tried. What has a result in
``FOLDER/results`` is not tried again, unless it failed and ``--again`` is given. Installed packages stay in
``FOLDER/packages``. The exit code is 1 where something did not train as it should.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tests.versions.locks import names
from tests.versions.table import rows
from tests.versions.trial import judged, tried, with_demo


def result_of(name: str, folder: Path, *, again: bool) -> dict[str, Any]:
    """The kept result, or a new one; with the demo's where it is missing."""
    file = folder / "results" / f"{name}.json"
    found: dict[str, Any] = judged(json.loads(file.read_text())) if file.exists() else tried(name, folder)
    if again and found["problems"]:
        found = tried(name, folder)
    if "unsloth" in found["pins"] and "demo" not in found:
        found = with_demo(found, folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found, indent=1))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--again", action="store_true", help="try again what failed")
    parser.add_argument("--table", action="store_true", help="show the kept results, as the page of versions has them")
    given = parser.parse_intermixed_args()
    folder = given.folder.resolve()
    if given.table:
        print("\n".join(rows(folder / "results")))
        return 0
    bad = 0
    for name in given.names or names():
        found = result_of(name, folder, again=given.again)
        bad += bool(found["problems"])
        print(f"{name}: {'; '.join(found['problems']) or 'trains'} ({found['seconds']} s)", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
