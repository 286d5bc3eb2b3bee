"""Smaller names of ``torch.cuda``: answered where one GPU has an answer, else refused by name."""

from __future__ import annotations

from functools import partial

from patcher.changes.torch import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

_patch = partial(
    Patch,
    distribution=DISTRIBUTION,
    reviewed=REVIEWED,
    until="torch.cuda answers for mps where there is no CUDA",
    needed_for=None,
)
_HERE = "patcher.replacements.torch.cuda_queries"
_INIT = "torch/cuda/__init__.py"

_NAMES = tuple(
    _patch(
        target=f"torch.cuda:{name}",
        replacement=f"{_HERE}:{name}",
        expects=expects,
        why="the original calls a function that torch has in builds for CUDA only",
        upstream=source(_INIT, name),
    )
    for name, expects in (
        ("cudart", "()"),
        ("check_error", "(res)"),
        ("can_device_access_peer", "(device, peer_device)"),
        ("get_sync_debug_mode", "()"),
        ("set_sync_debug_mode", "(debug_mode)"),
        ("current_blas_handle", "()"),
        ("current_solver_handle", "()"),
        ("get_stream_from_external", "(data_ptr, device=None)"),
    )
)
_OTHERS = (
    _patch(
        target="torch.cuda.streams:ExternalStream.__new__",
        replacement=f"{_HERE}:__new__",
        expects="(cls, stream_ptr, device=None, **kwargs)",
        why="the original asks for CUDA's device guard, and its error says nothing of streams",
        upstream=source("torch/cuda/streams.py", "ExternalStream.__new__"),
    ),
    _patch(
        target="torch.cuda:default_generators",
        replacement=f"{_HERE}:default_generators",
        why="a script that takes the generator of its GPU finds an empty tuple",
        upstream=source(_INIT, "default_generators"),
    ),
)
_COLLECTIVES = tuple(
    _patch(
        target=f"torch:_C.{name}",
        replacement=f"{_HERE}:{name}",
        adds=True,
        why="torch.nn.parallel's scatter, gather and broadcast call it also for one device, and CUDA's builds alone "
        "have it",
        upstream=source("torch/nn/parallel/comm.py", function),
    )
    for name, function in (
        ("_broadcast", "broadcast"),
        ("_broadcast_coalesced", "broadcast_coalesced"),
        ("_scatter", "scatter"),
        ("_gather", "gather"),
    )
)

CHANGES: tuple[AnyChange, ...] = (*_NAMES, *_OTHERS, *_COLLECTIVES)
