"""CUDA graphs are refused by name; what works without them works."""

from __future__ import annotations

from functools import partial

from patcher.changes.torch import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

_patch = partial(
    Patch,
    distribution=DISTRIBUTION,
    reviewed=REVIEWED,
    why="without CUDA torch's graphs are dummy classes, and what they raise does not say what to write instead",
    upstream=source("torch/cuda/graphs.py", "make_graphed_callables"),
    until="torch has graphs on mps",
    needed_for=None,
)

CHANGES: tuple[AnyChange, ...] = tuple(
    _patch(
        target=f"torch.cuda{target}",
        replacement=f"patcher.replacements.torch.cuda_graphs:{name}",
        expects=expects,
        may_lack=since_2_14,
    )
    for target, name, expects, since_2_14 in (
        (".graphs:CUDAGraph.__new__", "__new__", "(cls, keep_graph=False)", ()),
        (":graph_pool_handle", "graph_pool_handle", "()", ()),
        (":is_current_stream_capturing", "is_current_stream_capturing", "()", ()),
        (
            ":make_graphed_callables",
            "make_graphed_callables",
            "(callables, sample_args, num_warmup_iters=3, allow_unused_input=False, pool=None, "
            "capture_error_mode='global', enable_annotations=False)",
            ("capture_error_mode", "enable_annotations"),
        ),
    )
)
