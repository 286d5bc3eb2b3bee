"""``python -m tests.fidelity.wheel WHEEL...``: what a torch for macOS expects of a Mac that the installed one does not.

torch's databases of tests are Python and ship in its wheel. They are read with the installed torch in place of theirs;
what that lacks has a stand-in, which nothing calls.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import re
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

from tests.fidelity import corpora, releases
from tests.fidelity.cases import Case
from tests.fidelity.expectations import Expectation
from tests.process import run_python

DATABASES = "torch.testing._internal"


def main(arguments: list[str] | None = None) -> int:
    """Prints the difference; 1 where ``--check`` finds that the repository's file is not what the wheel gives."""
    parser = argparse.ArgumentParser(prog="python -m tests.fidelity.wheel", description=__doc__)
    parser.add_argument("wheel", nargs="*", type=Path, help="torch-...-macosx_..._arm64.whl")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--record", action="store_true", help="write what is found to the file of the release")
    how.add_argument("--check", action="store_true", help="compare what is found with the file of the release")
    how.add_argument("--expectations", metavar="WHEEL", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.expectations is not None:
        _print_expectations(given.expectations)
        return 0
    return max(_one(path, record=given.record, check=given.check) for path in given.wheel)


def _one(wheel: Path, *, record: bool, check: bool) -> int:
    version = wheel.name.split("-")[1]
    release = ".".join(version.split(".")[:2])
    head = {"torch": version, "wheel": wheel.name, "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest()}
    text = releases.written(head, _different(_expectations(""), _expectations(str(wheel.resolve()))))
    file = releases.path_of(release)
    if check:
        same = release == releases.installed() or (file.exists() and file.read_text() == text)
        print(f"torch {version}: {file.name} {'is' if same else 'is not'} what {wheel.name} gives")
        return 0 if same else 1
    print(text)
    if record and release != releases.installed():
        file.write_text(text)
        print(f"written: {file}")
    return 0


def _different(here: dict[Case, Expectation], there: dict[Case, Expectation]) -> Iterator[tuple[Case, Expectation]]:
    """The cases whose verdict is another, with what the wheel says."""
    for case in sorted({*here, *there}):
        expected = there.get(case, Expectation(releases.ABSENT))
        if case not in here or here[case] != expected:
            yield case, expected


def _expectations(wheel: str) -> dict[Case, Expectation]:
    """Of every case; ``""`` for the installed torch. In a process of its own: torch's databases are loaded once."""
    found = run_python("-m", "tests.fidelity.wheel", "--expectations", wheel, timeout=None)
    said = json.loads(found.stdout.splitlines()[-1])
    return {Case(*case): Expectation(verdict, source, tuple(allowed)) for case, (verdict, source, allowed) in said}


def _print_expectations(wheel: str) -> None:
    from patcher.simulator import start

    device = start("torch " + releases.installed())
    if wheel:
        _read_databases_of(Path(wheel))
    found = []
    for made in filter(lambda made: made.LISTED, map(corpora.corpus_class, corpora.names())):
        corpus = made(device.mac)  # type: ignore[arg-type]
        found += [(astuple(case), astuple(corpus.expectation(case))) for case in corpus.cases()]
    print(json.dumps(found))


def _read_databases_of(wheel: Path) -> None:
    """Lets ``torch.testing._internal`` be the wheel's, for imports that come."""
    import torch
    import torch.distributed
    import torch.testing._internal as databases

    for name in [name for name in sys.modules if name.startswith(f"{DATABASES}.")]:
        del sys.modules[name]
    databases.__path__ = [f"{wheel}/{DATABASES.replace('.', '/')}"]
    torch.__path__.append(f"{wheel}/torch")  # for what is not installed
    with zipfile.ZipFile(wheel) as content:
        modules = {
            match[1] for name in content.namelist() if (match := re.match(r"torch/(\w+)(/__init__)?\.py$", name))
        }
    before = torch.__getattr__

    def of_torch(name: str) -> Any:
        """A dtype or a module that the wheel's torch has, and the installed one has not."""
        try:
            return before(name)
        except AttributeError:
            if re.fullmatch(r"[a-z]+\d+", name):
                return torch.complex32  # which no test on mps has
            if name in modules:
                return importlib.import_module(f"torch.{name}")
            raise

    torch.__getattr__ = of_torch  # type: ignore[assignment]
    for module in (torch.linalg, torch.special, torch.nn.functional, torch._C._distributed_c10d):
        module.__getattr__ = _stand_in  # type: ignore[method-assign,assignment]


def _stand_in(name: str) -> Any:
    """A function that the wheel's torch has, and the installed one has not."""
    if name.startswith("__") and name.endswith("__"):
        raise AttributeError(name)

    def function(*_: object, **__: object) -> None:
        raise NotImplementedError(name)

    function.__name__ = name
    return function


if __name__ == "__main__":
    sys.exit(main())
