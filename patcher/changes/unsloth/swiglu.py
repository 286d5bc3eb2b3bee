"""The SwiGLU of LoRA MLPs runs on mps, forward and in-place backward."""

from __future__ import annotations

from functools import partial

from patcher.changes.unsloth import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

_patch = partial(
    Patch,
    distribution=DISTRIBUTION,
    reviewed=REVIEWED,
    needed_for=None,
    why="the LoRA MLPs of Llama, Mistral and Qwen launch Triton kernels, which run on torch operators one by one",
    upstream=source("unsloth/kernels/swiglu.py", "swiglu_fg_kernel"),
    until="the functions of swiglu.py have a torch variant",
)

CHANGES: tuple[AnyChange, ...] = (
    _patch(
        target="unsloth.kernels.swiglu:swiglu_fg_kernel",
        replacement="patcher.replacements.unsloth.swiglu:swiglu_fg_kernel",
        expects="(e, g)",
    ),
    _patch(
        target="unsloth.kernels.swiglu:swiglu_DWf_DW_dfg_kernel",
        replacement="patcher.replacements.unsloth.swiglu:swiglu_DWf_DW_dfg_kernel",
        expects="(DW, e, g)",
    ),
)
