"""RMSNorm of Llama, Mistral, Qwen and Gemma runs on mps: the two functions that launch upstream's kernels.

``Fast_RMS_Layernorm``, ``fast_rms_layernorm``, ``patch_rms_layernorm``, ``unpatch_rms_layernorm``, the module classes,
``reuse_grad`` and ``save_output`` stay upstream's own; all of them come to these two.
"""

from __future__ import annotations

from functools import partial

from patcher.engine.model import AnyChange, Patch

_patch = partial(
    Patch,
    distribution="unsloth",
    reviewed="==2026.10.9",
    needed_for="every model with RMSNorm",
    why="Every RMSNorm of a patched model launches Triton kernels, and there is no Triton for mps.",
    upstream="unsloth/kernels/rms_layernorm.py (_rms_forward, _rms_backward) in 2026.10.9",
    until="Unsloth computes RMSNorm without Triton on mps.",
)

CHANGES: tuple[AnyChange, ...] = (
    _patch(
        target="unsloth.kernels.rms_layernorm:_rms_forward",
        replacement="patcher.replacements.unsloth.rms_layernorm:_rms_forward",
        expects="(X, W, eps, gemma, wrap, multirow=None)",
    ),
    _patch(
        target="unsloth.kernels.rms_layernorm:_rms_backward",
        replacement="patcher.replacements.unsloth.rms_layernorm:_rms_backward",
        expects="(dY, dX, X, W, r, eps, gemma, wrap, multirow=None, train_w=False, from_y=False)",
    ),
)
