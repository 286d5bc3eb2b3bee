"""What becomes of flex attention, and of FlashAttention kernels from the hub."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from patcher.engine.ledger import original
from patcher.errors import NotOnMac, compose

_CUDA_KERNEL = re.compile(r"flash-?_?(attn|attention|mla)", re.IGNORECASE)
"""kernels-community/flash-attn2, flash-attn3, vllm-flash-attn3, flash-mla; not metal-flash-sdpa."""


def flex_attention_forward(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """As transformers'; raises NotOnMac on mps, before anything is computed."""
    if query.device.type == "mps":
        raise NotOnMac(
            compose(
                'attn_implementation="flex_attention": torch has no kernel for mps that gives gradients or sums',
                target=type(module).__name__,
                left="the model is loaded; on the CPU it runs",
                run='load it with attn_implementation="sdpa" or "eager", or call model.set_attn_implementation("sdpa")',
            )
        )
    forward = original("transformers.integrations.flex_attention:flex_attention_forward")
    result: tuple[Tensor, Tensor | None] = forward(
        module, query, key, value, attention_mask, scaling, softcap, s_aux, position_bias, **kwargs
    )
    return result


def load_and_register_attn_kernel(
    attn_implementation: str, attention_wrapper: Callable[..., Any] | None = None, allow_all_kernels: bool = False
) -> Any:
    """As transformers'; raises NotOnMac for kernels that are built for CUDA."""
    if _CUDA_KERNEL.search(attn_implementation):
        raise NotOnMac(
            compose(
                f'attn_implementation="{attn_implementation}": FlashAttention does not run on a Mac',
                left="no model was loaded",
                run='leave attn_implementation out, or pass "sdpa" or "eager"',
            )
        )
    load = original("transformers.integrations.hub_kernels:load_and_register_attn_kernel")
    return load(attn_implementation, attention_wrapper, allow_all_kernels)
