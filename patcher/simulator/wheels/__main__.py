"""``python -m patcher.simulator.wheels WHEEL...``: what a torch for macOS has that the one before has not."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from patcher.simulator.wheels import contents, records


def main(arguments: list[str] | None = None) -> int:
    """Prints the difference; 1 where ``--check`` finds that the repository's data is not what the wheel gives."""
    parser = argparse.ArgumentParser(prog="python -m patcher.simulator.wheels", description=__doc__)
    parser.add_argument("wheel", nargs="+", type=Path, help="torch-...-macosx_..._arm64.whl")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--record", action="store_true", help="write what is found to the data of the release")
    how.add_argument("--check", action="store_true", help="compare what is found with the data of the release")
    given = parser.parse_args(arguments)
    return max(_one(path, record=given.record, check=given.check) for path in given.wheel)


def _one(path: Path, *, record: bool, check: bool) -> int:
    wheel = contents.read(path)
    base = records.before(wheel.release)
    text = records.written(wheel, base)
    file = records.path_of(wheel.release)
    if check:
        same = file.exists() and file.read_text(encoding="utf-8") == text
        print(f"torch {wheel.torch}: {file.name} {'is' if same else 'is not'} what {path.name} gives")
        return 0 if same else 1
    print(text if base is not None else f"torch {wheel.torch}: the first release, nothing to compare it with")
    if record:
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
        print(f"written: {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
