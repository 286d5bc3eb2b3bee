"""Attention that cannot run on a Mac is an error that names the alternative."""

from __future__ import annotations

from functools import partial

from patcher.changes.torch import source as torch
from patcher.changes.transformers import DISTRIBUTION, REVIEWED
from patcher.engine.model import AnyChange, Patch

_REPLACEMENTS = "patcher.replacements.transformers.attention_names"
_patch = partial(Patch, distribution=DISTRIBUTION, reviewed=REVIEWED, needed_for=None)

CHANGES: tuple[AnyChange, ...] = (
    _patch(
        target="transformers.integrations.flex_attention:flex_attention_forward",
        replacement=f"{_REPLACEMENTS}:flex_attention_forward",
        expects="(module, query, key, value, attention_mask, scaling=None, softcap=None, "
        "s_aux=None, position_bias=None, **kwargs)",
        why="on mps torch has flex attention without a backward and without the sums that transformers asks for, and "
        "its messages name neither the argument nor a cure",
        upstream=torch("torch/nn/attention/flex_attention.py", "_validate_device"),
        until="torch's flex attention has a backward and log-sum-exp on mps",
    ),
)
