"""What becomes of flex attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from patcher.engine.ledger import original
from patcher.errors import NotOnMac, compose


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
