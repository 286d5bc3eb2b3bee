"""Compiles the simulated device, once per torch version, Python and source, into the user's cache folder."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from patcher import environment
from patcher.errors import SimulatorUnavailable, compose

MODULE = "_simulated_mps"
SOURCES = Path(__file__).parent / "native"
SUPPORTED = "2.13"
"""The torch release whose C++ interfaces the sources use."""

FLAGS = ("-std=c++20", "-O2", "-fPIC", "-fvisibility=hidden", "-w")
USUAL_SECONDS = 30
UNITS = 2
"""How many compilers run side by side, each with its part of the sources: torch's headers cost more than any source."""


def library(torch: ModuleType) -> Path:
    """The compiled device for this torch and Python; built on first use.

    Raises:
        SimulatorUnavailable: this machine, torch or compiler cannot have it, or the cache folder is not writable.
    """
    check_machine(torch)
    folder = environment.cache_folder() / "simulated-mps"
    final = folder / key(torch)
    if not _module_in(final).exists():
        _build_once(torch, folder, final)
    return _module_in(final)


def check_machine(torch: ModuleType) -> None:
    """Raises SimulatorUnavailable where the device cannot exist."""
    if platform.system() != "Linux":
        raise SimulatorUnavailable(
            compose(
                "the simulated mps device runs on Linux",
                found=platform.system(),
                run="on a Mac use the real device: leave UNSLOTH_SIMULATE_MAC unset",
            )
        )
    release = ".".join(torch.__version__.split(".")[:2])
    install = "pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"
    if release != SUPPORTED:
        raise SimulatorUnavailable(
            compose(
                "the simulated mps device does not know this torch",
                installed=f"torch {torch.__version__}",
                expected=f"torch {SUPPORTED}",
                run=install,
            )
        )
    if torch.version.cuda is not None or torch.version.hip is not None:
        raise SimulatorUnavailable(
            compose(
                "the simulated mps device needs a CPU build of torch: a process has one kind of accelerator",
                installed=f"torch {torch.__version__}, built for {torch.version.cuda or torch.version.hip}",
                expected="torch built for the CPU",
                run=install,
            )
        )


def key(torch: ModuleType) -> str:
    """Folder name of a build: whatever could make a compiled device unusable is in it."""
    digest = hashlib.sha256()
    for part in (torch.__version__, str(torch.version.git_version), _suffix(), *FLAGS):
        digest.update(part.encode() + b"\0")
    for path in _files():
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return f"torch-{torch.__version__}-{sys.implementation.cache_tag}-{digest.hexdigest()[:16]}"


def _files() -> list[Path]:
    return sorted([*SOURCES.glob("*.cpp"), *SOURCES.glob("*.h")])


def _folder(torch: ModuleType) -> Path:
    return Path(str(torch.__file__)).parent


def _suffix() -> str:
    return str(sysconfig.get_config_var("EXT_SUFFIX"))


def _module_in(folder: Path) -> Path:
    return folder / (MODULE + _suffix())


def _build_once(torch: ModuleType, folder: Path, final: Path) -> None:
    cxx, python_headers = compiler(), _python_headers()
    with _writable(folder), _locked(folder / f"{final.name}.lock"):
        if _module_in(final).exists():
            return
        # Whoever holds the lock is the only builder: what lies here was left by a killed one.
        for leftover in folder.glob(f"{final.name}.building-*"):
            shutil.rmtree(leftover)
        with tempfile.TemporaryDirectory(dir=folder, prefix=f"{final.name}.building-") as scratch:
            print(
                f"patcher: building the simulated mps device for torch {torch.__version__}"
                f" (once, about {USUAL_SECONDS} s)",
                file=sys.stderr,
                flush=True,
            )
            result = Path(scratch) / "result"
            result.mkdir()
            _compile(cxx, _folder(torch), python_headers, Path(scratch), _module_in(result))
            os.rename(result, final)


def _compile(cxx: str, torch: Path, python_headers: Path, scratch: Path, target: Path) -> None:
    include = [torch / "include", torch / "include/torch/csrc/api/include", python_headers]
    options = [*FLAGS, *(f"-isystem{path}" for path in include)]
    units = _units(scratch)
    with ThreadPoolExecutor(UNITS) as pool:
        list(pool.map(lambda unit: compile_with([cxx, *options, "-c", f"{unit}.cpp", "-o", f"{unit}.o"]), units))
    libraries = [f"-L{torch / 'lib'}", "-ltorch_python", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{torch / 'lib'}"]
    compile_with([cxx, "-shared", *(f"{unit}.o" for unit in units), "-o", str(target), *libraries])


def _units(scratch: Path) -> list[Path]:
    """Writes files ``unit-0.cpp``, ... that include the sources, about the same size each; gives them without ``.cpp``.

    So names in unnamed namespaces are unique in all sources.
    """
    sources = sorted(SOURCES.glob("*.cpp"), key=lambda path: path.stat().st_size, reverse=True)
    units = [scratch / f"unit-{number}" for number in range(UNITS)]
    for number, unit in enumerate(units):
        unit.with_suffix(".cpp").write_text("".join(f'#include "{path}"\n' for path in sources[number::UNITS]))
    return units


def compile_with(command: Sequence[str]) -> None:
    """Runs a compiler's command line. Raises SimulatorUnavailable with the compiler's first errors if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        raise SimulatorUnavailable(
            compose(
                "the simulated mps device does not compile here",
                expected="g++ 11 or clang++ 14, or newer",
                found="\n             ".join([f"exit code {done.returncode}", *errors[:3]]),
                left="nothing was written to the cache",
                run=f"choose another compiler with CXX=..., or see all errors: {' '.join(command)}",
            )
        )


def compiler() -> str:
    """The path of the C++ compiler: ``CXX``, else g++, clang++ or c++. Raises SimulatorUnavailable if there is none."""
    chosen = environment.value_of("CXX")
    for name in [chosen] if chosen else ["g++", "clang++", "c++"]:
        path = shutil.which(name)
        if path is not None:
            return path
    raise SimulatorUnavailable(
        compose(
            "the simulated mps device needs a C++ compiler, once",
            expected="g++, clang++ or c++ on PATH, or CXX set",
            found=f"CXX={chosen}, which is no program" if chosen else "none",
            run="sudo apt install g++ (Debian, Ubuntu), sudo dnf install gcc-c++ (Fedora)",
        )
    )


def _python_headers() -> Path:
    folder = Path(sysconfig.get_paths()["include"])
    if not (folder / "Python.h").exists():
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise SimulatorUnavailable(
            compose(
                "the simulated mps device needs the headers of this Python, once",
                expected=str(folder / "Python.h"),
                found="no such file",
                run=f"sudo apt install python{version}-dev (Debian, Ubuntu), sudo dnf install python3-devel (Fedora)",
            )
        )
    return folder


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise SimulatorUnavailable(
            compose(
                "the simulated mps device cannot be kept",
                expected=f"a folder that can be written to and has 50 MB left: {folder}",
                found=str(error),
                run="set PATCHER_CACHE to another folder",
            )
        ) from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
