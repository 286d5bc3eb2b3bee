"""Tools around CUDA: what only marks or measures does nothing, what asks NVIDIA's driver is refused by name."""

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
_HERE = "patcher.replacements.torch.cuda_tools"

_MARKS = tuple(
    _patch(
        target=f"torch.cuda.{target}",
        replacement=f"{_HERE}:{name}",
        expects=expects,
        why="a script that marks its steps for NVIDIA's profiler stops: the functions are not there without CUDA",
        upstream=source("torch/cuda/nvtx.py", "range_push"),
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
_EMIT_NVTX = _patch(
    target="torch.autograd.profiler:emit_nvtx.__init__",
    replacement=f"{_HERE}:emit_nvtx_init",
    expects="(self, enabled=True, record_shapes=False)",
    why="a script that marks its operators for NVIDIA's profiler stops: torch is built without it",
    upstream=source("torch/autograd/profiler.py", "emit_nvtx"),
)
_DRIVER = tuple(
    _patch(
        target=f"torch.cuda:{name}",
        replacement=f"{_HERE}:{name}",
        expects="(device=None)",
        why="the figure comes from NVIDIA's driver, and torch asks to install nvidia-ml-py, which cannot help on a Mac",
        upstream=source("torch/cuda/__init__.py", "_get_pynvml_handler"),
    )
    for name in ("utilization", "memory_usage", "device_memory_used", "temperature", "power_draw", "clock_rate")
)
_ALLOCATOR = tuple(
    _patch(
        target=f"torch.cuda.memory:{name}",
        replacement=f"{_HERE}:{name}",
        expects=expects,
        why="a script that records its memory history stops: the functions are not there without CUDA",
        upstream=source("torch/cuda/memory.py", "_record_memory_history"),
    )
    for name, expects in (
        ("_record_memory_history", None),  # it shows the signature of another function
        ("_snapshot", "(device=None, augment_with_fx_traces=False)"),
    )
)

CHANGES: tuple[AnyChange, ...] = (*_MARKS, _EMIT_NVTX, *_DRIVER, *_ALLOCATOR)
