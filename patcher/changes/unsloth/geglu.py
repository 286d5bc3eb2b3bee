"""The GEGLU of LoRA MLPs (Gemma) runs on mps, exact and with tanh, forward and in-place backward."""

from __future__ import annotations

from functools import partial

from patcher.changes.unsloth import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

_patch = partial(
    Patch,
    distribution=DISTRIBUTION,
    reviewed=REVIEWED,
    needed_for=None,
    why="the LoRA MLPs of Gemma launch Triton kernels, and there is no Triton for mps",
    upstream=source("unsloth/kernels/geglu.py", "geglu_exact_forward_kernel"),
    until="the functions of geglu.py have a torch variant",
)

CHANGES: tuple[AnyChange, ...] = (
    _patch(
        target="unsloth.kernels.geglu:geglu_exact_forward_kernel",
        replacement="patcher.replacements.unsloth.geglu:geglu_exact_forward_kernel",
        expects="(gate, up)",
    ),
    _patch(
        target="unsloth.kernels.geglu:geglu_exact_backward_kernel",
        replacement="patcher.replacements.unsloth.geglu:geglu_exact_backward_kernel",
        expects="(DW, e, g)",
    ),
    _patch(
        target="unsloth.kernels.geglu:geglu_approx_forward_kernel",
        replacement="patcher.replacements.unsloth.geglu:geglu_approx_forward_kernel",
        expects="(gate, up)",
    ),
    _patch(
        target="unsloth.kernels.geglu:geglu_approx_backward_kernel",
        replacement="patcher.replacements.unsloth.geglu:geglu_approx_backward_kernel",
        expects="(DW, e, g)",
    ),
)
