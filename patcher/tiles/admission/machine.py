"""Whether Metal is right about the building blocks of kernels on the Mac at hand; found out once, and kept on disk."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import logging
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

import torch

from patcher.environment import cache_folder
from patcher.tiles import types
from patcher.tiles.admission.blocks import Trial, trials
from patcher.tiles.admission.comparison import Arguments, compared
from patcher.tiles.frontend import Known, read
from patcher.tiles.on_metal import NotOnMetal, launcher_of
from patcher.tiles.on_torch.carriers import NATIVE

LOG = logging.getLogger(__name__)

SOURCES = Path(__file__).parent.parent
"""What a verdict depends on, beside the machine: the kernel language and its back ends."""

MOST_KEPT = 16
"""Verdicts that are kept, the newest ones."""

OF_TORCH = {torch.uint8: types.uint8, **{dtype: types.DType(name) for name, dtype in NATIVE.items()}}


@functools.cache
def why_not() -> str:
    """Why no kernel runs as a shader in this process; empty where they do. Logs it, once."""
    if not hasattr(torch.mps, "compile_shader"):
        return f"torch {torch.__version__} has no torch.mps.compile_shader"
    place = folder() / f"{key()}.json"
    wrong = kept(place)
    if wrong is None:
        wrong, refused = tried()
        if refused is None:
            keep(place, wrong)
        else:
            wrong = {"shaders": refused}
    if not wrong:
        return ""
    told = "; ".join(f"{name}: {what}" for name, what in wrong.items())
    why = f"on this Mac Metal gives other numbers than torch on the CPU, or none: {told}"
    LOG.warning("Triton kernels run with torch operators: %s", why)
    return why


def tried() -> tuple[dict[str, str], str | None]:
    """Runs every trial.

    Returns:
        What is wrong, by trial, and why no shader runs at all, if none does. A trial that Metal here has no shader for,
        such as those of bfloat before macOS 14, is none that is wrong: kernels of its kind have none either.
    """
    wrong: dict[str, str] = {}
    for number, trial in enumerate(trials()):
        try:
            told = tried_one(trial)
        except NotOnMetal as refusal:
            if number == 0:  # in fp32: there is no compiler, or none that works
                return wrong, str(refusal)
            continue
        if told:
            wrong[trial.name] = told
    return wrong, None


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
    given = {name: spec_of(value) for name, value in zip(names, trial.args, strict=False)}
    return {**given, **{name: Known(value) for name, value in trial.constants.items()}}


def spec_of(value: Any) -> Any:
    """The type of a tensor's pointer, or of a whole number."""
    return types.Pointer(OF_TORCH[value.dtype]) if isinstance(value, torch.Tensor) else types.int32


# -- what is kept ------------------------------------------------------------------------------------------------------


def folder() -> Path:
    """Where verdicts are kept: in the cache folder, a small file for each machine and version."""
    return cache_folder() / "triton-on-metal"


def key() -> str:
    """What a verdict holds for: the GPU, macOS, torch and the sources of this package."""
    digest = hashlib.sha256()
    for part in (torch.backends.mps.get_name(), platform.platform(), torch.__version__):
        digest.update(part.encode() + b"\0")
    for path in sorted(SOURCES.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:32]


def kept(place: Path) -> dict[str, str] | None:
    """A verdict: what is wrong, by trial. None where there is none that can be read."""
    try:
        found = json.loads(place.read_text())
    except (OSError, ValueError):
        return None
    whole = isinstance(found, dict) and all(isinstance(value, str) for value in found.values())
    return found if whole else None


def keep(place: Path, wrong: dict[str, str]) -> None:
    """Writes a verdict, whole or not at all; it is found again the next time if it cannot be kept."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=place.parent, suffix=".part", delete=False) as file:
            json.dump(wrong, file, indent=1)
        os.replace(file.name, place)
        for old in sorted(place.parent.glob("*.json"), key=lambda path: path.stat().st_mtime)[:-MOST_KEPT]:
            old.unlink(missing_ok=True)
    except OSError as error:
        LOG.debug("what Metal gives on this Mac is not kept: %s", error)
