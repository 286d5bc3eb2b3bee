"""Whether Metal is right about the building blocks of kernels on the Mac at hand; found out once, and kept on disk.

What is wrong is not kept: a process that finds it says so, and the next one tries again.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from patcher import kept, surroundings
from patcher.environment import cache_folder
from patcher.tiles import types
from patcher.tiles.admission.blocks import Trial, trials
from patcher.tiles.admission.comparison import compared, first_line
from patcher.tiles.admission.copies import Arguments
from patcher.tiles.frontend import Known, read
from patcher.tiles.on_metal import NotOnMetal, launcher_of
from patcher.tiles.on_torch.carriers import OF_TORCH

LOG = logging.getLogger(__name__)

SOURCES = Path(__file__).parent.parent
"""What the trials depend on, beside the machine: the kernel language and its back ends."""

MOST_KEPT = 16
"""Files that are kept, the newest ones."""

MOST_TOLD = 3
"""Trials that a warning names."""


@functools.cache
def why_not() -> str:
    """Why no kernel runs as a shader in this process; empty where they do. Logs it, once."""
    if not hasattr(torch.mps, "compile_shader"):
        return f"torch {torch.__version__} has no torch.mps.compile_shader"
    place = folder() / f"{key()}.json"
    if is_kept(place):
        return ""
    LOG.info("trying on this Mac whether Triton kernels are right as Metal shaders: once, and it takes a while")
    right, why = tried()
    if not why:
        keep(place, right)
        return ""
    LOG.warning("Triton kernels run with torch operators, as PATCHER_TRITON=torch lets them without a trial: %s", why)
    return why


def tried() -> tuple[list[str], str]:
    """Runs every trial.

    Returns:
        The trials that Metal is right in, and what is wrong with the others. One that Metal has no shader for, such as
        those of bfloat before macOS 14, is in neither: kernels of its kind have none either.
    """
    right: list[str] = []
    wrong: list[str] = []
    for number, trial in enumerate(trials()):
        try:
            told = tried_one(trial)
        except NotOnMetal as refusal:
            if number == 0:  # in fp32: there is no compiler, or none that works
                return right, str(refusal)
            continue
        except Exception as error:  # noqa: BLE001 - such as no memory: this process has torch, the next one tries again
            return right, f"{trial.name} could not be tried: {first_line(error)}"
        if told:
            wrong.append(f"{trial.name}: {told}")
        else:
            right.append(trial.name)
    more = f"; and {len(wrong) - MOST_TOLD} more" if len(wrong) > MOST_TOLD else ""
    what = "Metal gives other numbers on this Mac than torch on the CPU: "
    return right, what + "; ".join(wrong[:MOST_TOLD]) + more if wrong else ""


def tried_one(trial: Trial) -> str:
    """What is wrong with the shader of a trial. Raises NotOnMetal where there is none."""
    program = read(trial.kernel, specs(trial))
    arguments = list(trial.args)
    launcher = launcher_of(program, trial.grid, [_to(each, "mps") for each in arguments], trial.num_warps)

    def as_shader(passed: Arguments) -> None:
        on_mps = [_to(each, "mps") for each in passed]
        launcher.launch(trial.grid, on_mps)
        for own, there in zip(passed, on_mps, strict=True):
            if isinstance(own, torch.Tensor) and isinstance(there, torch.Tensor):
                own.copy_(there)

    return compared(program, trial.grid, arguments, launcher.written(arguments), as_shader)[0]


def _to(value: Any, device: str) -> Any:
    return value.to(device) if isinstance(value, torch.Tensor) else value


def specs(trial: Trial) -> dict[str, Any]:
    """What the front end is told about a trial's arguments."""
    names = list(inspect.signature(trial.kernel).parameters)
    given = {name: spec_of(value, trial.seen_as) for name, value in zip(names, trial.args, strict=False)}
    return {**given, **{name: Known(value) for name, value in trial.constants.items()}}


def spec_of(value: Any, seen_as: Mapping[torch.dtype, types.DType]) -> Any:
    """The type of a tensor's pointer, or of a number."""
    if isinstance(value, torch.Tensor):
        return types.Pointer(seen_as.get(value.dtype, OF_TORCH[value.dtype]))
    if isinstance(value, float):
        return types.float32
    return types.int32 if value < 1 << 31 else types.int64


# -- what is kept ------------------------------------------------------------------------------------------------------


def folder() -> Path:
    """Where it is kept that a machine is right: in the cache folder, a small file for each machine and version."""
    return cache_folder() / "triton-on-metal"


def key() -> str:
    """What it holds for: the surroundings and the sources of this package."""
    digest = hashlib.sha256()
    for part in surroundings.machine():
        digest.update(part.encode() + b"\0")
    for path in sorted(SOURCES.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:32]


def is_kept(place: Path) -> bool:
    """Whether a machine is known to be right. What cannot be read says nothing, and is written anew."""
    found = kept.read(place)
    return isinstance(found, list) and found != [] and all(isinstance(name, str) for name in found)


def keep(place: Path, right: list[str]) -> None:
    """Writes which trials were right; they run again where it cannot be kept."""
    kept.write(place, right, MOST_KEPT)
