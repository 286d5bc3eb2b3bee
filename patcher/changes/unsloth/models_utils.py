"""Unsloth knows that the Mac computes in bfloat16 and has soft-capped attention, but no backward of flex attention."""

from __future__ import annotations

from patcher.changes.torch import source as torch
from patcher.changes.unsloth import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import Patch, Substitute

_REPLACEMENTS = "patcher.replacements.unsloth.models_utils"
_VALUE = "patcher.replacements.unsloth.device_type:SUPPORTS_BFLOAT16"

CHANGES = (
    Substitute(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        module="unsloth.models._utils",
        references={
            "SUPPORTS_BFLOAT16": _VALUE,
            "HAS_FLASH_ATTENTION_SOFTCAPPING": f"{_REPLACEMENTS}:HAS_FLASH_ATTENTION_SOFTCAPPING",
        },
        needed_for="bf16: every model is loaded in fp16 without a word",
        why="there is no branch for mps: bfloat16 counts as missing, every model is loaded in fp16, and Gemma 2 keeps "
        "two masks of its longest length squared",
        upstream=source("unsloth/models/_utils.py", "SUPPORTS_BFLOAT16"),
        until="SUPPORTS_BFLOAT16 has a branch for mps",
    ),
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="unsloth._gpu_init:SUPPORTS_BFLOAT16",
        needed_for=None,
        replacement=_VALUE,
        adds=True,
        why="there is no branch for mps: `from unsloth import SUPPORTS_BFLOAT16` fails",
        upstream=source("unsloth/_gpu_init.py", "SUPPORTS_BFLOAT16"),
        until="SUPPORTS_BFLOAT16 has a branch for mps",
    ),
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="unsloth._gpu_init:is_bf16_supported",
        replacement="patcher.replacements.torch.mps:is_bf16_supported",
        adds=True,
        needed_for=None,
        why="the name exists on CUDA only: `from unsloth import is_bf16_supported` in Unsloth's notebooks fails",
        upstream=source("unsloth/_gpu_init.py", "is_bf16_supported"),
        until="unsloth has is_bf16_supported on mps",
    ),
    *(
        Patch(
            distribution=DISTRIBUTION,
            reviewed=REVIEWED,
            target=f"unsloth.models._utils:{name}",
            replacement=f"{_REPLACEMENTS}:{name}",
            adds=True,
            needed_for=None,
            why="releases before 2026.9.3 have the name for CUDA and XPU only, and name it in __all__",
            upstream=source("unsloth/models/_utils.py", "torch_amp_custom_fwd"),
            until="no release before 2026.9.3 is to be used",
        )
        for name in ("torch_amp_custom_fwd", "torch_amp_custom_bwd")
    ),
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="unsloth.models._utils:_flex_attention_gpu_is_supported",
        replacement=f"{_REPLACEMENTS}:_flex_attention_gpu_is_supported",
        expects="()",
        needed_for=None,
        why="Unsloth prefers flex attention for Gemma 3, and torch refuses its backward on mps: no Gemma 3 trains",
        upstream=torch("torch/nn/attention/flex_attention.py", "_validate_device"),
        until="torch's flex attention has a backward on mps",
    ),
)
