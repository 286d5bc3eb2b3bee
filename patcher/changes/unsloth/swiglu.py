"""The SwiGLU of LoRA MLPs runs on mps, forward and in-place backward."""

from __future__ import annotations

from functools import partial

from patcher.engine.model import AnyChange, Patch

_patch = partial(
    Patch,
    distribution="unsloth",
    reviewed="==2026.10.9",
    needed_for="LoRA on the MLPs of Llama, Mistral and Qwen",
    why="The LoRA MLPs of Llama, Mistral and Qwen launch Triton kernels, and there is no Triton for mps.",
    upstream="unsloth/kernels/swiglu.py in 2026.10.9",
    until="Unsloth computes SwiGLU without Triton on mps.",
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
