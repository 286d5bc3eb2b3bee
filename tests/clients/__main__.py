"""Runs the tests that Liger-Kernel and flash-linear-attention have of their own, through the Triton shim:

    python -m tests.clients OUT [--liger CHECKOUT] [--fla CHECKOUT] [--each N] [--seconds S] [--match TEXT]

A checkout is a clone of the project; the package in it is installed into ``OUT/site-packages`` by pip unless it is
there. OUT gets the lines of every test and pytest's own output. Nothing of the tests is changed: of every test function
at most N parametrisations run (`tests.clients.sample` says which), each with S seconds of the processor.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.clients.summary import read, reasons, table
from tests.process import ROOT, run_python


@dataclass(frozen=True)
class Client:
    """A project whose tests run.

    Attributes:
        package: where its package is in a checkout.
        tests: the folders of tests that launch kernels.
        leave: pytest's -k: what needs more than one device, or another compiler than Triton.
        ignore: files that cannot be imported without that compiler.
        plugin: what its tests need to be told of mps.
        extras: other packages that it imports.
    """

    package: str
    tests: tuple[str, ...]
    leave: str
    ignore: str = ""
    plugin: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()


CLIENTS = {
    "liger": Client(
        package="src/liger_kernel",
        tests=("test/transformers", "test/triton"),
        leave="not dtensor and not cute",
        ignore="test_cut*.py",
        plugin=("-p", "tests.clients.liger"),
    ),
    "fla": Client(
        package="fla",
        tests=("tests/modules", "tests/ops", "tests/layers"),
        leave="not tilelang",
        extras=("einops==0.8.2",),
    ),
}


FINISHED = (0, 1, 5)
"""Pytest's exit codes where every test has its outcome: all passed, some failed, none was chosen."""


def main() -> int:
    """Prints tables; 1 where a run wrote no line."""
    parser = argparse.ArgumentParser(prog="python -m tests.clients", description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    for name in CLIENTS:
        parser.add_argument(f"--{name}", type=Path, metavar="CHECKOUT")
    parser.add_argument("--each", type=int, default=1, help="parametrisations of a test function")
    parser.add_argument("--seconds", type=int, default=60, help="of the processor, for a test")
    parser.add_argument("--match", default="", help="as pytest's -k, besides")
    options = parser.parse_args()
    good = True
    for name, client in CLIENTS.items():
        checkout = getattr(options, name)
        if checkout is not None:
            file = run(name, client, checkout.resolve(), options)
            lines = read(file) if file.exists() else []
            print(f"## {name}\n\n{table(lines)}\n\n{reasons(lines)}\n", flush=True)
            good = good and bool(lines)
    return 0 if good else 1


def run(name: str, client: Client, checkout: Path, options: argparse.Namespace) -> Path:
    """The file with the lines of a client's tests; each of their files has a process: none takes another along."""
    out = options.out.resolve()
    packages = installed(client, checkout, out / "site-packages")
    lines, said = out / f"{name}.jsonl", out / f"{name}.txt"
    for file in (lines, said):
        file.unlink(missing_ok=True)
    chosen = " and ".join(filter(None, (client.leave, options.match and f"({options.match})")))
    for tests in sorted(path for folder in client.tests for path in (checkout / folder).glob("test_*.py")):
        if client.ignore and tests.match(client.ignore):
            continue
        done = run_python(
            *("-P", "-m", "pytest", "-q", "-n0", "-p", "tests.clients.sample", *client.plugin),
            *("-p", "no:cacheprovider", "-o", "pythonpath=", "-o", "log_cli=false"),
            *("--simulated-mac", "--simulated-mac-patch", "-k", chosen, tests.relative_to(checkout)),
            timeout=None,
            check=False,
            cwd=checkout,
            PYTHONPATH=os.pathsep.join((str(ROOT), str(packages))),
            PATCHER_CLIENTS_OUT=str(lines),
            PATCHER_CLIENTS_EACH=str(options.each),
            PATCHER_CLIENTS_SECONDS=str(options.seconds),
        )
        with said.open("a") as file:
            file.write(done.stdout + done.stderr)
        if done.returncode not in FINISHED:
            _write_end(lines, str(tests.relative_to(checkout)), done.returncode)
    return lines


def _write_end(lines: Path, tests: str, code: int) -> None:
    """The line of a file whose process did not come to its end."""
    line = {"test": tests, "outcome": "failed", "when": "process", "seconds": 0.0, "why": f"exit code {code}"}
    with lines.open("a") as file:
        file.write(json.dumps(line) + "\n")


def installed(client: Client, checkout: Path, packages: Path) -> Path:
    """The folder with the package as it is in the checkout, under the name by which it counts as a library.

    pip gives it its metadata; its files are copied, since pip leaves folders without an ``__init__.py`` out.
    """
    target = packages / Path(client.package).name
    if not target.is_dir():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
        subprocess.run([*pip, "--target", str(packages), str(checkout), *client.extras], check=True)
        shutil.copytree(checkout / client.package, target, dirs_exist_ok=True)
    return packages


if __name__ == "__main__":
    sys.exit(main())
