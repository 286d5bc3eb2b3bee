"""Lookups: in tables of any size, and an index beyond them is an error."""

from __future__ import annotations

from functools import partial

from patcher.changes.torch import DISTRIBUTION, REVIEWED, issues, native
from patcher.engine.model import Kernel

_kernel = partial(Kernel, distribution=DISTRIBUTION, reviewed=REVIEWED, dispatch_key="MPS", wraps=True)
_INDEXING = "aten/src/ATen/native/mps/operations/Indexing.mm"
_REPLACEMENTS = "patcher.replacements.torch.indexing"

_label = partial(
    _kernel,
    needed_for=None,
    why="labels beyond the classes count as if they were ignored, without a word",
    upstream=native("aten/src/ATen/native/mps/operations/LossOps.mm", "nllnd_loss_forward_impl", issues(144824)),
    until="torch raises for labels beyond the classes on mps",
)
_write = partial(
    _kernel,
    needed_for=None,
    why="an index beyond the tensor is written to, in other tensors' memory, without a word",
    upstream=native(_INDEXING, "index_copy_out_mps", issues(189968, 189969)),
    until="issues 189968 and 189969 are closed",
)
_bag = partial(
    _kernel,
    needed_for=None,
    why="an index equal to the number of rows reads the memory behind the table",
    upstream=native("aten/src/ATen/native/mps/kernels/EmbeddingBag.metal", "embedding_bag_impl", issues(189971)),
    until="issue 189971 is closed",
)

CHANGES = (
    _kernel(
        op="aten::index_select",
        replacement=f"{_REPLACEMENTS}:index_select",
        needed_for="embeddings with more than 2^31 elements, and token ids beyond the vocabulary: both become zeros "
        "without a word",
        why="before torch 2.14 rows beyond element 2^31 of a table, and ids beyond its rows, are zeros, and since then "
        "the latter are an error that names neither the id nor the cure",
        upstream=native(_INDEXING, "index_select_out_mps", issues(188756, 154235, 144824, 123119)),
        until="the oldest torch that is supported is 2.14, and its error names the id",
    ),
    *(
        _label(op=f"aten::{name}", replacement=f"{_REPLACEMENTS}:{name}")
        for name in ("nll_loss_forward", "nll_loss2d_forward")
    ),
    _write(op="aten::index_copy_", replacement=f"{_REPLACEMENTS}:index_copy_"),
    _write(op="aten::index_fill_.int_Scalar", replacement=f"{_REPLACEMENTS}:index_fill__int_Scalar"),
    _write(op="aten::index_fill_.int_Tensor", replacement=f"{_REPLACEMENTS}:index_fill__int_Tensor"),
    _bag(op="aten::_embedding_bag", replacement=f"{_REPLACEMENTS}:_embedding_bag"),
    _bag(op="aten::_embedding_bag_forward_only", replacement=f"{_REPLACEMENTS}:_embedding_bag_forward_only"),
)
