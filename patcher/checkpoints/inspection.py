"""Whether a folder is a checkpoint that training can go on from.

Only what a resume reads is judged: model card and tokenizer may be changed. With a manifest these files must have
exactly the bytes that it lists. A checkpoint without one (from CUDA, or from transformers alone) is judged by its
structure: the files parse, safetensors and torch files are as long as their headers say. In both, a pickle that refers
to anything but tensors and plain data is refused before it is read.
"""

from __future__ import annotations

import json
import os
import re
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from patcher.checkpoints import manifest

STATE = "trainer_state.json"
UNFINISHED = "checkpoint-is-incomplete.txt"
"""What transformers' own just-in-time checkpoints hold while they are written (trainer_jit_checkpoint.py, 5.17.0)."""
_PARTS = ("optimizer.pt", "scheduler.pt", "rng_state.pth")
_OF_TORCH = re.compile(r"^((optimizer|scheduler|scaler)\.(pt|bin)|rng_state.*\.pth|(pytorch|adapter)_model.*\.bin)$")
"""The pickles that a resume reads. training_args.bin, a pickle of the arguments' class, is none of them."""
_WEIGHTS = re.compile(r"^(.+\.safetensors|(pytorch|adapter)_model.*\.bin)$")
_DESCRIPTIONS = re.compile(r"^(.+\.index\.json|(adapter_)?config\.json|.+_state\.json|checkpoint_manifest\.json)$")
_OF_NUMPY = {
    f"numpy.{name}" for name in ("_core.multiarray._reconstruct", "core.multiarray._reconstruct", "ndarray", "dtype")
} | {"numpy.dtypes.UInt32DType", "_codecs.encode"}
"""What the state of numpy's generator is made of (transformers.trainer_pt_utils.safe_globals)."""


@dataclass(frozen=True)
class Verdict:
    """What an inspection found.

    Attributes:
        problems: why the folder cannot be used; empty where it can.
        lacks: parts that it does not have, or no longer, and that start anew after it.
        weights: whether there is a file of weights as transformers names it.
    """

    problems: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    weights: bool = True

    @property
    def shortcomings(self) -> str:
        """What a training that goes on from it has to know; empty where it has everything."""
        said = [] if self.weights else ["no weights in a file of transformers' (a trainer may have its own)"]
        return "; ".join(said + ([f"no {', '.join(self.lacks)}: these start anew"] if self.lacks else []))


def inspect(folder: Path) -> Verdict:
    """Reads the folder once, and where a manifest gives checksums all that `is_read` names."""
    absent = {name for name in _PARTS if not os.path.lexists(folder / name)}
    try:
        listed = manifest.listed(folder)
    except manifest.UNREADABLE as error:
        return Verdict((f"{manifest.NAME} cannot be read: {error}",))
    read = {name: entry for name, entry in (listed or {}).items() if is_read(name) and name not in absent}
    differences = tuple(manifest.differences(folder, read))
    if differences:
        return Verdict(differences)
    pickles = tuple(problem for path in _torch_files(folder) if (problem := _unsafe(path)) is not None)
    if listed is not None:
        return Verdict(pickles, tuple(sorted(absent & listed.keys())))
    weights = any(_WEIGHTS.match(path.name) for path in _files(folder))
    return Verdict((*_structure(folder), *pickles), tuple(name for name in _PARTS if name in absent), weights)


def is_read(name: str) -> bool:
    """Whether a resume reads this file of a checkpoint: weights with their index and configuration, and the states of
    optimizer, scheduler, scaler, generators and trainer."""
    base = name.rpartition("/")[2]
    return any(form.match(base) for form in (_OF_TORCH, _WEIGHTS, _DESCRIPTIONS))


def _structure(folder: Path) -> Iterator[str]:
    if (folder / UNFINISHED).exists():
        yield f"{UNFINISHED} says that it was not written to its end"
    if not (folder / STATE).is_file():
        yield f"{STATE} is missing"
    for path in _files(folder):
        problem = problem_of(path)
        if problem is not None:
            yield f"{path.relative_to(folder).as_posix()} {problem}"


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _torch_files(folder: Path) -> list[Path]:
    return [path for path in _files(folder) if _OF_TORCH.match(path.name)]


def problem_of(path: Path) -> str | None:
    if path.suffix == ".safetensors":
        return _problem_of_safetensors(path)
    if path.name.endswith(".index.json"):
        return _problem_of_index(path)
    if path.name in (STATE, "config.json", "adapter_config.json"):
        return _problem_of_json(path)
    return None


def _problem_of_safetensors(path: Path) -> str | None:
    """Eight bytes with the header's length, the header in JSON, then the tensors (safetensors' format)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if 8 + length > size:
            return f"is truncated: {size} bytes hold no header"
        try:
            header = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            expected = 8 + length + max(ends, default=0)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
            return "has no header that can be read"
    return None if size == expected else f"has {size} bytes instead of {expected}"


def _problem_of_index(path: Path) -> str | None:
    problem = _problem_of_json(path)
    if problem is not None:
        return problem
    shards = json.loads(path.read_bytes()).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        return "does not say in which files the weights are"
    missing = sorted({name for name in shards.values() if not (path.parent / name).is_file()})
    return f"names {', '.join(missing)}, which is not there" if missing else None


def _problem_of_json(path: Path) -> str | None:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return "is truncated or no JSON"
    return None if isinstance(content, dict) else "is no JSON object"


def _unsafe(path: Path) -> str | None:
    """What the pickle in a torch file would import beyond what torch.load(weights_only=True) allows.

    A torch file is a zip file, whose directory is at its end. Bare pickles, from before torch 1.6, are refused.
    """
    if not zipfile.is_zipfile(path):
        return f"{path.name} is truncated, or no torch file"
    from torch.serialization import get_unsafe_globals_in_checkpoint

    try:
        wanted = set(get_unsafe_globals_in_checkpoint(str(path)))
    except Exception as error:  # noqa: BLE001 - reading a broken pickle can raise anything; it is the verdict
        return f"{path.name} cannot be read: {first_line(error)}"
    unsafe = sorted(wanted - _OF_NUMPY)
    return f"{path.name} holds a pickle that would run {', '.join(unsafe)}: refused" if unsafe else None


def first_line(error: BaseException) -> str:
    """What an exception says, in one line; its type where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)
