"""The language-model loss runs on mps: the two halves of ``Fast_CrossEntropyLoss``.

``fast_cross_entropy_loss`` (``n_items``, rows without labels) and ``patch_loss_functions`` stay upstream's own.
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
    why="the loss launches Triton kernels, which run on torch operators one by one",
    upstream=source("unsloth/kernels/cross_entropy_loss.py", "Fast_CrossEntropyLoss"),
    until="Fast_CrossEntropyLoss has a torch variant",
)

CHANGES: tuple[AnyChange, ...] = (
    _patch(
        target="unsloth.kernels.cross_entropy_loss:Fast_CrossEntropyLoss.forward",
        replacement="patcher.replacements.unsloth.cross_entropy_loss:forward",
        expects="(ctx, logits, labels, logit_softcapping=0, logit_scaling=0)",
    ),
    _patch(
        target="unsloth.kernels.cross_entropy_loss:Fast_CrossEntropyLoss.backward",
        replacement="patcher.replacements.unsloth.cross_entropy_loss:backward",
        expects="(ctx, dlosses)",
    ),
)
