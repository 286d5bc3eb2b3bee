"""RMSNorm of Llama, Mistral, Qwen and Gemma runs on mps: the two functions that launch upstream's kernels.

``Fast_RMS_Layernorm``, ``fast_rms_layernorm``, ``patch_rms_layernorm``, ``unpatch_rms_layernorm``, the module classes,
``reuse_grad`` and ``save_output`` stay upstream's own; all of them come to these two.
"""

from __future__ import annotations

from functools import partial

from patcher.changes.unsloth import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

_patch = partial(
    Patch,
    distribution=DISTRIBUTION,
    reviewed=REVIEWED,
    needed_for=None,
    why="every RMSNorm of a patched model launches Triton kernels, which run on torch operators one by one",
    upstream=source("unsloth/kernels/rms_layernorm.py", "_rms_forward"),
    until="_rms_forward and _rms_backward have a torch variant",
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
        may_lack=("train_w", "from_y"),
    ),
)
