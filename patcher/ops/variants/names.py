"""The names of variants, and which of them the user leaves out or asks for. Imports no torch.

A variant is named ``metal:rms_norm``, or ``metal`` for those of all ops; globs match such names.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from patcher import environment
from patcher.errors import InvalidSwitch, compose

VARIANTS = ("metal",)
"""Those beside torch, which is always there. The functions of one are in ``patcher/ops/<variant>/<op>.py``."""

OPS = tuple(sorted(path.stem for path in (Path(__file__).parent.parent / "metal").glob("*.metal")))
"""The ops that have variants."""

TORCH = "torch"

CHOICES: list[dict[Any, Any]] = []
"""What has been chosen in this process, for each op."""


def is_one(pattern: str) -> bool:
    """Whether it names variants that some op has, as ``metal`` or ``metal:*norm``."""
    return any(pattern == name or (pattern.startswith(f"{name}:") and _ops(pattern, name)) for name in VARIANTS)


def left_out(variant: str, op: str) -> bool:
    """Whether ``PATCHER_WITHOUT`` leaves this variant out."""
    return any(_matches(pattern, variant, op) for pattern in environment.switches().without)


def forced(op: str) -> str | None:
    """The variant that ``PATCHER_FORCE`` asks for; None where it asks for none. Raises as `check`."""
    check()
    asked = environment.forced_variants()
    return next((name for pattern in asked for name in (TORCH, *VARIANTS) if _matches(pattern, name, op)), None)


def check() -> None:
    """Raises InvalidSwitch where ``PATCHER_FORCE`` names what is no variant of any op."""
    for pattern in environment.forced_variants():
        if not any(_ops(pattern, name) for name in (TORCH, *VARIANTS)):
            raise InvalidSwitch(
                compose(
                    f"{environment.FORCE} names no variant",
                    expected=f"{' or '.join((TORCH, *VARIANTS))}, alone or with one of these: {', '.join(OPS)}",
                    found=repr(pattern),
                    left="nothing changed",
                    run=f"export {environment.FORCE}={VARIANTS[0]}:{OPS[0]}, or unset {environment.FORCE}",
                )
            )


def forget() -> None:
    """Every op chooses anew."""
    for choice in CHOICES:
        choice.clear()


def _ops(pattern: str, variant: str) -> list[str]:
    return [op for op in OPS if _matches(pattern, variant, op)]


def _matches(pattern: str, variant: str, op: str) -> bool:
    return pattern == variant or fnmatchcase(f"{variant}:{op}", pattern)
