"""Functions that make a tensor on a device they ask about first, or from a kernel that mps lacks, take ``"cuda"``."""

from __future__ import annotations

from functools import partial

from patcher.changes.torch import DISTRIBUTION, REVIEWED, native
from patcher.engine.model import Patch

_patch = partial(
    Patch,
    distribution=DISTRIBUTION,
    reviewed=REVIEWED,
    needed_for=None,
    until="torch itself takes 'cuda' for mps where there is no CUDA",
)
_GUARD = (
    "asarray",
    "range",
    "sparse_coo_tensor",
    "sparse_compressed_tensor",
    "sparse_csr_tensor",
    "sparse_csc_tensor",
    "sparse_bsr_tensor",
    "sparse_bsc_tensor",
)

_OF_NUMBERS = ("full", "arange", "linspace", "logspace", "scalar_tensor")

CHANGES = (
    *(
        _patch(
            target=f"torch:{name}",
            replacement=f"patcher.replacements.torch.factories:{name}",
            why="its numbers in float64, which mps refuses, are looked at before they become float32",
            upstream=native("aten/src/ATen/mps/EmptyTensor.cpp", "empty_mps"),
        )
        for name in _OF_NUMBERS
    ),
    *(
        _patch(
            target=f"torch:{name}",
            replacement=f"patcher.replacements.torch.factories:{name}",
            why="it asks for CUDA's device guard, which a build without CUDA lacks",
            upstream=native("torch/csrc/utils/tensor_new.cpp", "maybe_initialize_device"),
        )
        for name in _GUARD
    ),
    _patch(
        target="torch:kaiser_window",
        replacement="patcher.replacements.torch.factories:kaiser_window",
        why="torch has a kernel of it for the CPU and CUDA alone, and no fallback reaches it",
        upstream=native("aten/src/ATen/native/TensorFactories.cpp", "kaiser_window_stub"),
    ),
    _patch(
        target="torch:Tensor.new_tensor",
        replacement="patcher.replacements.torch.factories:new_tensor",
        why="new_tensor(device='cuda') asks for CUDA's device guard, which a build without CUDA lacks",
        upstream=native("torch/csrc/utils/tensor_new.cpp", "new_tensor"),
    ),
    _patch(
        target="torch:Tensor.pin_memory",
        replacement="patcher.replacements.torch.factories:pin_memory",
        why="pin_memory('cuda') starts CUDA",
        upstream=native("aten/src/ATen/native/Memory.cpp", "pin_memory"),
    ),
    _patch(
        target="torch.nested:nested_tensor",
        replacement="patcher.replacements.torch.factories:nested_tensor",
        expects="(tensor_list, *, dtype=None, layout=None, device=None, requires_grad=False, pin_memory=False)",
        why="nested tensors of the strided layout exist on the CPU and CUDA alone: torch ends in an internal assertion",
        upstream=native("aten/src/ATen/NestedTensorImpl.cpp", "storage_device"),
    ),
    _patch(
        target="torch.nested:as_nested_tensor",
        replacement="patcher.replacements.torch.factories:as_nested_tensor",
        expects="(ts, dtype=None, device=None, layout=None)",
        why="nested tensors of the strided layout exist on the CPU and CUDA alone: torch ends in an internal assertion",
        upstream=native("aten/src/ATen/NestedTensorImpl.cpp", "storage_device"),
    ),
)
