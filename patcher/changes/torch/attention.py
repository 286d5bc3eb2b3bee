"""Attention with dropout works where no gradient is needed."""

from __future__ import annotations

from patcher.changes.torch import DISTRIBUTION, REVIEWED, issues, native
from patcher.engine.model import Kernel

CHANGES = (
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
