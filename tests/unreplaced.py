"""The kernels of Unsloth and TRL as they ship, in tests: without the changes that stand in for their launches.

With ``PATCHER_UNREPLACED=FOLDER`` every process that a test starts leaves these out, and tells in FOLDER at its end
which kernels it launched. What was told there, as a table:

    python -m tests.unreplaced FOLDER
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from patcher.changes import catalogue
from patcher.environment import WITHOUT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).parent


def replacements() -> list[str]:
    """What is replaced because it launches a kernel, and where it does; training does without any of it.

    4-bit weights are none of these: their kernels are not reached for another reason, that of native pointers.
    """
    sites: list[dict[str, Any]] = tomllib.loads((HERE / "contract" / "launch_sites.toml").read_text())["site"]
    optional = {change.key for change in catalogue() if not change.required}
    targets = dict.fromkeys(target for site in sites for target in site.get("by", ()) if _is_in(target, site["file"]))
    return [target for target in targets if target in optional]


def _is_in(target: str, file: str) -> bool:
    return target.partition(":")[0].replace(".", "/") + ".py" == file


def asked_for() -> Path | None:
    """The folder, where this run of the tests is one without replacements."""
    folder = os.environ.get("PATCHER_UNREPLACED")
    return Path(folder).resolve() if folder else None


def as_they_ship(environment: dict[str, str], folder: Path) -> dict[str, str]:
    """The environment of a process without replacements, which tells in the folder what it has launched.

    Where it has a list of what is left out, that is the list.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join([str(HERE / "launches"), environment["PYTHONPATH"]])
    told = {"PYTHONPATH": path, "LAUNCHES_TOLD_IN": str(folder)}
    return {WITHOUT: ",".join(replacements()), **environment, **told}


def launches(folder: Path) -> dict[str, Counter[str]]:
    """How often each kernel was launched, by its name and by where it ran: "metal", or why not."""
    found: dict[str, Counter[str]] = {}
    for file in folder.glob("*.json"):
        for kernel, where, times in json.loads(file.read_text()):
            found.setdefault(kernel, Counter())[where] += times
    return dict(sorted(found.items()))


def table(folder: Path) -> Iterator[str]:
    """A line for each kernel, and the sum."""
    for kernel, places in (found := launches(folder)).items():
        yield f"{kernel}: {', '.join(f'{times} {where}' for where, times in places.most_common())}"
    yield f"all: {dict(sum(found.values(), Counter()))}"


if __name__ == "__main__":
    print("\n".join(table(Path(sys.argv[1]))))
