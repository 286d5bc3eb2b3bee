"""What CUDA's allocator tells and offers: figures are those of mps, its own doings are refused by name."""

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
_HERE = "patcher.replacements.torch.cuda_memory"
_MODULES = ("torch.cuda", "torch.cuda.memory")

_ANSWERED = tuple(
    _patch(
        target=f"{module}:{name}",
        replacement=f"{_HERE}:{name}",
        expects=expects,
        why="without CUDA the allocator's figures are empty, and a script that reads one of them stops",
        upstream=source("torch/cuda/memory.py", name),
    )
    for name, expects in (
        ("memory_stats", "(device=None)"),
        ("memory_stats_as_nested_dict", "(device=None)"),
        ("memory_summary", "(device=None, abbreviated=False)"),
        ("memory_snapshot", "(mempool_id=None, include_traces=True)"),
        ("list_gpu_processes", "(device=None)"),
        ("get_allocator_backend", "()"),
        ("get_per_process_memory_fraction", "(device=None)"),
        ("reset_peak_host_memory_stats", "()"),
        ("reset_accumulated_host_memory_stats", "()"),
    )
    for module in _MODULES
)
_REFUSED = tuple(
    _patch(
        target=target,
        replacement=f"{_HERE}:{name}",
        expects=expects,
        why="mps has one allocator, and what torch raises does not say what to write instead",
        upstream=source("torch/cuda/memory.py", symbol),
    )
    for target, name, expects, symbol in (
        *(
            (f"{module}:{name}", name, expects, name)
            for name, expects in (
                ("caching_allocator_alloc", "(size, device=None, stream=None)"),
                ("caching_allocator_delete", "(mem_ptr)"),
            )
            for module in _MODULES
        ),
        ("torch.cuda.memory:MemPool.__new__", "__new__", "(obj, *args, **kwargs)", "MemPool"),
        (
            "torch.cuda.memory:CUDAPluggableAllocator.__init__",
            "__init__",
            "(self, path_to_so_file, alloc_fn_name, free_fn_name)",
            "CUDAPluggableAllocator.__init__",
        ),
    )
)

CHANGES: tuple[AnyChange, ...] = (*_ANSWERED, *_REFUSED)
