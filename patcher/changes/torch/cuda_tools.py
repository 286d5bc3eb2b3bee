"""Tools around CUDA: what only marks or measures does nothing, what asks NVIDIA's driver is refused by name."""

from __future__ import annotations

from functools import partial

from patcher.engine.model import AnyChange, Patch

_patch = partial(
    Patch, distribution="torch", reviewed=">=2.13,<2.15", until="scripts ask torch.accelerator", needed_for=None
)
_HERE = "patcher.replacements.torch.cuda_tools"

_MARKS = tuple(
    _patch(
        target=f"torch.cuda.{target}",
        replacement=f"{_HERE}:{name}",
        expects=expects,
        why="a script that marks its steps for NVIDIA's profiler stops: the functions are not there without CUDA",
        upstream="torch 2.13.0 torch/cuda/nvtx.py, torch/cuda/profiler.py",
    )
    for target, name, expects in (
        ("nvtx:range_push", "range_push", "(msg)"),
        ("nvtx:range_pop", "range_pop", "()"),
        ("nvtx:range_start", "range_start", "(msg)"),
        ("nvtx:range_end", "range_end", "(range_id)"),
        ("nvtx:mark", "mark", "(msg)"),
        ("profiler:start", "start", "()"),
        ("profiler:stop", "stop", "()"),
    )
)
_DRIVER = tuple(
    _patch(
        target=f"torch.cuda:{name}",
        replacement=f"{_HERE}:{name}",
        expects="(device=None)",
        why="the figure comes from NVIDIA's driver; torch asks to install nvidia-ml-py, which cannot help on a Mac",
        upstream="torch 2.13.0 torch/cuda/__init__.py: _get_pynvml_handler",
    )
    for name in ("utilization", "memory_usage", "temperature", "power_draw", "clock_rate")
)
_ALLOCATOR = tuple(
    _patch(
        target=f"torch.cuda.memory:{name}",
        replacement=f"{_HERE}:{name}",
        expects=expects,
        why="a script that records its memory history stops: the functions are not there without CUDA",
        upstream="torch 2.13.0 torch/cuda/memory.py",
    )
    for name, expects in (
        ("_record_memory_history", None),  # it shows the signature of another function
        ("_snapshot", "(device=None, augment_with_fx_traces=False)"),
    )
)

CHANGES: tuple[AnyChange, ...] = (*_MARKS, *_DRIVER, *_ALLOCATOR)
