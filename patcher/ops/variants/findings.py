"""What trials have told of an op's variants on this machine; found out once, and kept on disk."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from patcher import environment, kept, surroundings
from patcher.ops.variants import names, trial

LOG = logging.getLogger(__name__)

MOST_KEPT = 512
"""Files that are kept, the newest ones; each is less than 2 KiB."""


@dataclass(frozen=True)
class Finding:
    """Attributes:
    wrong: what is wrong with a variant; empty where nothing is.
    seconds: how long it takes, by the width of the sample; nothing on a simulated Mac, whose times say nothing.
    """

    wrong: str = ""
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def time(self) -> float:
        """Seconds for all samples, each of which is one time as wide as long."""
        return sum(self.seconds.values())


def of(op: str, dtype: torch.dtype) -> dict[str, Finding]:
    """What is known of each variant that is not left out, torch included."""
    place = folder() / f"{op}-{str(dtype).removeprefix('torch.')}-{surroundings.key()}.json"
    there = [name for name in (names.TORCH, *names.VARIANTS) if not names.left_out(name, op)]
    found = _read(place) if environment.triton_cache() else {}
    if list(found) != there:
        LOG.info("trying the variants of %s in %s on this machine: once", op, dtype)
        found, whole = _tried(op, dtype, there)
        if whole and environment.triton_cache():
            kept.write(place, {name: asdict(finding) for name, finding in found.items()}, MOST_KEPT)
    return found


def folder() -> Path:
    """Where it is kept."""
    return environment.cache_folder() / "variants"


def _tried(op: str, dtype: torch.dtype, variants: Sequence[str]) -> tuple[dict[str, Finding], bool]:
    """Tries each variant; also says whether all of them could be tried.

    Modes that look at operators see nothing of it: selective checkpointing would hand on its products as the model's.
    """
    found, whole = {}, True
    for variant in variants:
        try:
            with _alone():
                wrong = "" if variant == names.TORCH else trial.wrong(variant, op, dtype)
                timed = {} if wrong or sys.platform != "darwin" else trial.seconds(variant, op, dtype)
            found[variant] = Finding(wrong, timed)
        except Exception as error:  # noqa: BLE001 - no compiler, no memory: this process has torch, the next one tries again
            found[variant], whole = Finding(f"it could not be tried: {first_line(error)}"), False
    return found, whole


@contextmanager
def _alone() -> Iterator[None]:
    """Without gradients, autocast, modes that look at operators, and a default device."""
    with _disable_current_modes(), torch.no_grad(), torch.autocast("mps", enabled=False), torch.device("cpu"):
        yield


def first_line(error: Exception) -> str:
    """What an error says first."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"


def _read(place: Path) -> dict[str, Finding]:
    """What a file says; nothing where it says nothing of this kind."""
    content: Any = kept.read(place)
    try:
        return {str(name): Finding(str(each["wrong"]), dict(each["seconds"])) for name, each in content.items()}
    except (AttributeError, TypeError, KeyError):
        return {}
