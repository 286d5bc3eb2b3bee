"""The labels of ``unsloth_zoo.fused_losses.chunked_logprob``, which stay known on the host."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from patcher.replacements.torch import indexing


def _ce_targets(labels: Tensor, mask: Tensor | None, shift_labels: bool, ignore_index: int, device: Any) -> Tensor:
    """Of each token the one that it should predict, flat; ``ignore_index`` where there is none or ``mask`` is 0.

    Where labels and mask are copies of what a data loader gave, the result is made on the host too, and remembered.
    """
    labels, mask = labels.to(device), None if mask is None else mask.to(device)
    targets = _targets(labels, mask, shift_labels, ignore_index)
    if not torch.compiler.is_compiling() and targets.is_mps:
        known = [indexing.on_host(tensor) for tensor in (labels, mask) if tensor is not None]
        if all(tensor is not None for tensor in known):
            indexing.remember(_targets(known[0], (*known, None)[1], shift_labels, ignore_index), targets)
    return targets


def _targets(labels: Any, mask: Any, shift_labels: bool, ignore_index: int) -> Tensor:
    if mask is not None:
        labels = labels.masked_fill(mask == 0, ignore_index)
    if shift_labels:
        labels = torch.nn.functional.pad(labels[..., 1:], (0, 1), value=ignore_index)
    flat: Tensor = labels.reshape(-1)
    return flat
