"""``attn_implementation="flash_attention_2"`` works on mps, for padded, packed and windowed rows."""

from __future__ import annotations

from functools import partial

from patcher.changes.transformers import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

_REPLACEMENTS = "patcher.replacements.transformers.flash_attention"
_patch = partial(
    Patch,
    distribution=DISTRIBUTION,
    reviewed=REVIEWED,
    needed_for=None,
    until="transformers has FlashAttention on mps, with gradients",
)
_MODELS = source("transformers/modeling_utils.py", "PreTrainedModel._flash_attn_can_dispatch")

CHANGES: tuple[AnyChange, ...] = (
    _patch(
        target="transformers.integrations.flash_attention:flash_attention_forward",
        replacement=f"{_REPLACEMENTS}:flash_attention_forward",
        expects="(module, query, key, value, attention_mask, dropout=0.0, scaling=None, sliding_window=None, "
        "softcap=None, is_causal=None, s_aux=None, **kwargs)",
        may_lack=("is_causal", "s_aux"),
        why="flash-attn is written for CUDA, and transformers waits for the device in each layer to see what is packed",
        upstream=source("transformers/modeling_flash_attention_utils.py", "_flash_attention_forward"),
    ),
    _patch(
        target="transformers.modeling_flash_attention_utils:_lazy_imports",
        replacement=f"{_REPLACEMENTS}:_lazy_imports",
        expects="(implementation, attention_wrapper=None, allow_all_kernels=False)",
        may_lack=("attention_wrapper", "allow_all_kernels"),
        why="the functions are imported from flash-attn, or from a kernel of the hub that is built for CUDA",
        upstream=source("transformers/modeling_flash_attention_utils.py", "_lazy_imports"),
    ),
    _patch(
        target="transformers.integrations.hub_kernels:load_and_register_attn_kernel",
        replacement=f"{_REPLACEMENTS}:load_and_register_attn_kernel",
        expects="(attn_implementation, attention_wrapper=None, allow_all_kernels=False)",
        since="5.0.0",
        why="a FlashAttention kernel of the hub is built for CUDA, and the original asks to install a package for it",
        upstream=source("transformers/integrations/hub_kernels.py", "load_and_register_attn_kernel"),
    ),
    _patch(
        target="transformers.modeling_utils:PreTrainedModel._flash_attn_can_dispatch",
        replacement=f"{_REPLACEMENTS}:_flash_attn_can_dispatch",
        expects="(self, flash_attn_version, is_init_check=False)",
        since="5.0.0",
        why="a model is not loaded where flash-attn is not installed, or CUDA is not there",
        upstream=_MODELS,
    ),
    *(
        _patch(
            target=f"transformers.modeling_utils:PreTrainedModel._flash_attn_{version}_can_dispatch",
            replacement=f"{_REPLACEMENTS}:_flash_attn_{version}_can_dispatch",
            expects="(self, is_init_check=False)",
            before="5.0.0",
            why="a model is not loaded where flash-attn is not installed, or CUDA is not there",
            upstream=_MODELS,
        )
        for version in (2, 3)
    ),
)
