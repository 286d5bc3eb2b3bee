"""Attention that is trained takes memory in proportion to its length; with dropout it works without gradients too."""

from __future__ import annotations

from patcher.changes.torch import DISTRIBUTION, REVIEWED, issues, native
from patcher.engine.model import Kernel

CHANGES = (
    Kernel(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        op="aten::scaled_dot_product_attention",
        dispatch_key="AutogradMPS",
        wraps=True,
        needed_for=None,
        replacement="patcher.replacements.torch.attention:scaled_dot_product_attention",
        why="where a gradient is needed torch multiplies whole matrices on mps, and keeps them for the backward: "
        "memory grows with the square of the length",
        upstream=native(
            "aten/src/ATen/native/transformers/attention.cpp", "scaled_dot_product_attention", issues(179294)
        ),
        until="torch has a fused attention with gradients on mps",
    ),
    Kernel(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        op="aten::_scaled_dot_product_attention_math_for_mps",
        dispatch_key="MPS",
        wraps=True,
        needed_for="attention dropout where no gradient is needed: reentrant checkpointing and frozen layers stop",
        replacement="patcher.replacements.torch.attention:_scaled_dot_product_attention_math_for_mps",
        why="torch takes kernels without dropout where no gradient is needed: since 2.13 they raise, before they left "
        "the dropout out without a word",
        upstream=native(
            "aten/src/ATen/native/mps/operations/Attention.mm", "_scaled_dot_product_attention_math_mps", issues(184126)
        ),
        until="torch's kernels for mps have dropout",
    ),
)
