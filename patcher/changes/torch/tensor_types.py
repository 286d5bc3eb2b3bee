"""``torch.cuda.FloatTensor`` and the other types of older scripts are those of mps."""

from __future__ import annotations

from functools import partial

from patcher.changes.torch import DISTRIBUTION, REVIEWED, native
from patcher.engine.model import Patch

_patch = partial(
    Patch,
    distribution=DISTRIBUTION,
    reviewed=REVIEWED,
    needed_for=None,
    upstream=native("torch/csrc/tensor/python_tensor.cpp", "Tensor_new"),
    until="torch itself takes 'cuda' for mps where there is no CUDA",
)
TYPES = ("BFloat16", "Bool", "Byte", "Char", "Double", "Float", "Half", "Int", "Long", "Short")

CHANGES = (
    *(
        _patch(
            target=f"torch.cuda:{name}Tensor",
            replacement=f"patcher.replacements.torch.tensor_types:{name}Tensor",
            why="older scripts make and check tensors by torch.cuda's types, which raise without CUDA",
        )
        for name in TYPES
    ),
    _patch(
        target="torch:Tensor.type",
        replacement="patcher.replacements.torch.tensor_types:type_",
        why="x.type('torch.cuda.FloatTensor') starts CUDA, and torch does not take mps's own name",
    ),
    _patch(
        target="torch:set_default_tensor_type",
        replacement="patcher.replacements.torch.tensor_types:set_default_tensor_type",
        expects="(t, /)",
        why="older scripts make CUDA their default device by a type, which raises without CUDA",
    ),
)
