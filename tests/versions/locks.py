"""Which libraries a user got with a release of Unsloth on the day after it came out, as a file of pins:

    python -m tests.versions.locks 2026.9.14 2026.10.1
    python -m tests.versions.locks 2026.3.18+transformers4 --with "transformers<5"
    python -m tests.versions.locks trl-newest --with trl transformers peft accelerate bitsandbytes "datasets<5"

A file ``requirements/versions/VERSION.txt`` has the libraries that train, each in the newest version that the release's
metadata allow and that was there on that day, and what else they keep from being as ``requirements/linux.txt`` has it.
torch and what is built for CUDA are left out: the simulated Mac is one of torch 2.13, whatever a release asks for.
Needs ``uv`` on PATH and the index; the files are kept with the tests.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import urllib.request
from datetime import datetime, timedelta
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

from tests.process import ROOT

LOCKS = ROOT / "requirements" / "versions"
BASE = ROOT / "requirements" / "linux.txt"
INDEX = "https://pypi.org/simple"
OF_THE_DAY = (
    *("unsloth", "unsloth-zoo", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "datasets"),
    *("tokenizers", "huggingface-hub", "safetensors"),
)
LEFT_OUT = ("torch", "torchvision", "torchao", "triton", "xformers", "cut-cross-entropy", "diffusers")


def names() -> list[str]:
    """What there is a file for: releases of Unsloth, the oldest first, then what is without Unsloth."""
    found = [file.stem for file in LOCKS.glob("*.txt")]
    releases = sorted((name for name in found if name[0].isdigit()), key=Version)
    return [*releases, *sorted(set(found) - set(releases))]


def pins(file: Path) -> dict[str, str]:
    """Versions by canonical name in a file of pins."""
    lines = (line.partition("#")[0].strip() for line in file.read_text().splitlines())
    found = (Requirement(line) for line in lines if line)
    return {canonicalize_name(one.name): next(iter(one.specifier)).version for one in found}


def released(name: str, version: str) -> datetime:
    """When the index was given a release."""
    ask = urllib.request.Request(f"{INDEX}/{name}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"})
    with urllib.request.urlopen(ask, timeout=60) as answer:
        files = json.load(answer)["files"]
    wheels = (file for file in files if file["filename"].endswith(".whl"))
    (time,) = [w["upload-time"] for w in wheels if str(parse_wheel_filename(w["filename"])[1]) == version]
    return datetime.fromisoformat(time.replace("Z", "+00:00"))


def resolved(wanted: str, day: datetime | None) -> dict[str, str]:
    """What to install for some requirements, as it was to be had then; other libraries as linux.txt has them."""
    with tempfile.TemporaryDirectory() as folder:
        found, overrides = Path(folder, "found.txt"), Path(folder, "overrides.txt")
        found.write_text(BASE.read_text())
        overrides.write_text("".join(f"{name}; sys_platform == 'never'\n" for name in LEFT_OUT))
        until = [f"--exclude-newer-package={name}={day.isoformat()}" for name in OF_THE_DAY] if day else []
        how = ["--quiet", "--system-certs", "--no-header", "--no-annotate", "--python-version=3.11"]
        how += ["--python-platform=x86_64-manylinux_2_28", f"--overrides={overrides}", f"--output-file={found}"]
        subprocess.run(["uv", "pip", "compile", *how, *until, "-"], input=wanted, text=True, check=True)
        return pins(found)


def lock(name: str, more: list[str]) -> Path:
    """Writes the pins of a release of Unsloth, which ``name`` begins with, under other requirements besides.

    A name that does not begin with a version is for these requirements alone.
    """
    file = LOCKS / f"{name}.txt"
    if not name[0].isdigit():
        write(file, resolved("\n".join(more), None), f"With {', '.join(more)}")
        return file
    version = name.partition("+")[0]
    day = released("unsloth", version) + timedelta(days=1)
    wanted = "\n".join([f"unsloth[huggingface]=={version}", *more])
    write(file, resolved(wanted, day), " ".join([f"Until {day:%-d %B %Y}", *(f"with {one}" for one in more)]))
    return file


def write(file: Path, found: dict[str, str], origin: str) -> None:
    """The pins that differ from linux.txt, and those of the libraries that train."""
    base = pins(BASE)
    kept = {name: v for name, v in found.items() if name in OF_THE_DAY or base.get(name, v) != v}
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{name}=={v}\n" for name, v in sorted(kept.items()))
    file.write_text(f"# {origin}; the rest as linux.txt has it. Made by tests/versions/locks.py.\n{lines}")


if __name__ == "__main__":
    given = sys.argv[1:]
    besides = given[given.index("--with") + 1 :] if "--with" in given else []
    for name in given[: len(given) - len(besides) - bool(besides)]:
        print(lock(name, besides).read_text())
