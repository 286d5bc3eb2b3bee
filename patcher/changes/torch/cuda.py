"""The ``torch.cuda`` queries of CUDA scripts are answered for mps."""

from __future__ import annotations

from patcher.changes.torch import DISTRIBUTION, REVIEWED, source
from patcher.changes.unsloth import source as unsloth
from patcher.engine.model import Patch

_ANSWERED = {
    "Event": None,
    "Stream": None,
    "current_device": "()",
    "current_stream": "(device=None)",
    "default_stream": "(device=None)",
    "device": None,
    "empty_cache": "()",
    "get_device_capability": "(device=None)",
    "get_device_name": "(device=None)",
    "get_device_properties": "(device=None)",
    "get_rng_state": "(device='cuda')",
    "get_rng_state_all": "()",
    "initial_seed": "()",
    "ipc_collect": "()",
    "is_bf16_supported": "(including_emulation=True)",
    "manual_seed": "(seed)",
    "manual_seed_all": "(seed)",
    "max_memory_allocated": "(device=None)",
    "max_memory_reserved": "(device=None)",
    "mem_get_info": "(device=None)",
    "memory_allocated": "(device=None)",
    "memory_reserved": "(device=None)",
    "memory_stats": "(device=None)",
    "memory_summary": "(device=None, abbreviated=False)",
    "reset_accumulated_memory_stats": "(device=None)",
    "reset_max_memory_allocated": "(device=None)",
    "reset_max_memory_cached": "(device=None)",
    "reset_peak_memory_stats": "(device=None)",
    "seed": "()",
    "seed_all": "()",
    "set_device": "(device)",
    "set_per_process_memory_fraction": "(fraction, device=None)",
    "set_rng_state": "(new_state, device='cuda')",
    "set_rng_state_all": "(new_states)",
    "stream": "(stream)",
    "synchronize": "(device=None)",
    "_lazy_init": "()",
}

CHANGES = (
    *(
        Patch(
            distribution=DISTRIBUTION,
            reviewed=REVIEWED,
            target=f"torch.cuda:{name}",
            replacement=f"patcher.replacements.torch.cuda:{name}",
            expects=parameters,
            needed_for=None,
            why="a CUDA script asks torch.cuda, which raises or answers zero where there is no CUDA",
            upstream=source("torch/cuda/__init__.py", "_lazy_init"),
            until="torch.cuda answers for mps where there is no CUDA",
        )
        for name, parameters in _ANSWERED.items()
    ),
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="torch:_C._cuda_getCurrentRawStream",
        replacement="patcher.replacements.torch.cuda:_cuda_getCurrentRawStream",
        adds=True,
        needed_for="the import of Unsloth",
        why="a CUDA script asks torch.cuda, which raises or answers zero where there is no CUDA",
        upstream=unsloth("unsloth/kernels/utils.py", "_CUDA_STREAMS"),
        until="Unsloth asks for streams only where it launches native kernels",
    ),
)
