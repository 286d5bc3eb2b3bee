"""Every public name of ``torch.cuda``, called on a simulated Mac; ``python -m tests.changes.torch.cuda_names FILE``.

`public_names` reads them out of the installed torch, so that what a new torch adds is missed by the tables.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

MODULES = ("torch.cuda", "torch.cuda.memory", "torch.cuda.random")

VALUES = ("default_generators", "has_half", "has_magma")
PARTS = ("amp", "graphs", "jiterator", "memory", "nccl", "nvtx", "profiler", "random", "sparse", "streams", "tunable")
WITHOUT_ARGUMENTS = """
    Event Stream caching_allocator_enable cudart current_device current_stream default_stream device_count empty_cache
    get_allocator_backend get_arch_list get_device_capability get_device_name get_device_properties get_gencode_flags
    get_per_process_memory_fraction get_rng_state get_rng_state_all get_sync_debug_mode host_memory_stats
    host_memory_stats_as_nested_dict init initial_seed ipc_collect is_available is_bf16_supported
    is_current_stream_capturing is_initialized is_tf32_supported list_gpu_processes max_memory_allocated
    max_memory_cached max_memory_reserved mem_get_info memory_allocated memory_cached memory_reserved memory_snapshot
    memory_stats memory_stats_as_nested_dict memory_summary reset_accumulated_host_memory_stats
    reset_accumulated_memory_stats reset_max_memory_allocated reset_max_memory_cached reset_peak_host_memory_stats
    reset_peak_memory_stats seed seed_all synchronize
"""
_DTYPES = ("BFloat16", "Bool", "Byte", "Char", "Double", "Float", "Half", "Int", "Long", "Short")
TYPES = tuple(f"{name}Tensor" for name in _DTYPES)
STORAGES = tuple(f"{name}Storage" for name in (*_DTYPES, "ComplexDouble", "ComplexFloat"))
ARGUMENTS = {
    "StreamContext": "StreamContext(cuda.Stream()).__enter__()",
    "caching_allocator_disabled": "caching_allocator_disabled",
    "can_device_access_peer": "can_device_access_peer(0, 0)",
    "check_error": "check_error(0)",
    "device": "device(0).__enter__()",
    "device_of": "device_of(torch.ones(1).cuda()).__enter__()",
    "make_graphed_callables": "make_graphed_callables(torch.sin, (torch.ones(1).cuda(),))",
    "manual_seed": "manual_seed(1)",
    "manual_seed_all": "manual_seed_all(1)",
    "set_device": "set_device(0)",
    "set_per_process_memory_fraction": "set_per_process_memory_fraction(0.5)",
    "set_rng_state": "set_rng_state(cuda.get_rng_state())",
    "set_rng_state_all": "set_rng_state_all(cuda.get_rng_state_all())",
    "set_stream": "set_stream(cuda.current_stream())",
    "set_sync_debug_mode": "set_sync_debug_mode('default')",
    "stream": "stream(cuda.Stream()).__enter__()",
}
ANSWERED = {
    **{name: name for name in (*VALUES, *PARTS)},
    **{name: f"{name}()" for name in (*WITHOUT_ARGUMENTS.split(), *TYPES, *STORAGES)},
    **ARGUMENTS,
}
"""What gives an answer, and how it is asked."""

REFUSED = {
    "CUDAGraph": "CUDAGraph()",
    "CUDAPluggableAllocator": "CUDAPluggableAllocator('alloc.so', 'alloc', 'free')",
    "ExternalStream": "ExternalStream(1)",
    "MemPool": "MemPool()",
    "caching_allocator_alloc": "caching_allocator_alloc(8)",
    "caching_allocator_delete": "caching_allocator_delete(1)",
    "clock_rate": "clock_rate()",
    "current_blas_handle": "current_blas_handle()",
    "current_solver_handle": "current_solver_handle()",
    "device_memory_used": "device_memory_used()",
    "get_stream_from_external": "get_stream_from_external(1)",
    "graph_pool_handle": "graph_pool_handle()",
    "memory_usage": "memory_usage()",
    "power_draw": "power_draw()",
    "temperature": "temperature()",
    "utilization": "utilization()",
}
"""What is refused with what to write instead."""

EXCEPTIONS = {
    "CudaError": "made by torch, of a number that CUDA's runtime gave",
    "DeferredCudaCallError": "made by torch, of an error while CUDA starts",
    "GreenContext": "made by its create(), which asks CUDA's driver for a part of its processors",
    "change_current_allocator": "takes a CUDAPluggableAllocator, which is refused",
    "cudaStatus": "a table of two numbers",
    "graph": "takes a CUDAGraph, which is refused",
    "use_mem_pool": "takes a MemPool, which is refused",
}
"""What is not called, and why."""

SINCE_2_14 = {
    "export_dot": "takes a CUDAGraph, which is refused",
    "export_graph_data": "takes a CUDAGraph, which is refused",
    "graph_annotations": "a module about the kernels of a CUDAGraph",
}
"""The same for what torch 2.13 has not yet."""


def public_names() -> set[str]:
    return {name for module in MODULES for name in importlib.import_module(module).__all__}


def documented_statistics() -> set[str]:
    """The keys that torch's documentation of ``memory_stats`` promises, its braces written out."""
    import torch

    text = re.sub(r"\s+", " ", torch.cuda.memory.memory_stats.__doc__ or "")
    patterns = re.findall(r'``"((?:[a-z_]+\.|num_|max_)[\w.{},]+)"``', text)
    return {key for pattern in patterns for key in _written_out(pattern)}


def _written_out(pattern: str) -> Iterator[str]:
    match = re.search(r"\{([^}]*)\}", pattern)
    if match is None:
        yield pattern
        return
    for choice in match[1].split(","):
        yield from _written_out(pattern[: match.start()] + choice + pattern[match.end() :])


def outcome(call: Callable[[], Any]) -> str:
    try:
        call()
    except Exception as error:  # noqa: BLE001 - what is raised is the outcome
        return f"{type(error).__name__}: {error}"
    return "answered"


def asked(module: Any, code: str, cuda: Any, torch: Any) -> str:
    return outcome(lambda: eval(f"module.{code}", {"module": module, "cuda": cuda, "torch": torch}))


def made_in(torch: Any, device: Any) -> str:
    with torch.cuda.device(device):
        return str(torch.ones(1, device="cuda").device.type)


def autocast_off(torch: Any) -> list[Any]:
    """A region that a script takes out of mixed precision by hand, and the dtype that it asks for another."""
    x, y = torch.ones(1, 4096, device="cuda"), torch.full((4096, 1), 1.0009, device="cuda")
    with torch.autocast("cuda", dtype=torch.bfloat16):
        before = torch.is_autocast_enabled()
        torch.set_autocast_enabled(False)
        whole = x @ y
        torch.set_autocast_enabled(device_type="cuda", enabled=before)
        torch.set_autocast_gpu_dtype(torch.float16)
        half = x @ y
        torch.set_autocast_dtype("cuda", torch.bfloat16)
        named = torch.get_autocast_gpu_dtype()
    return [before, str(whole.dtype), str(half.dtype), str(named), torch._C.is_autocast_enabled("cuda")]


def captured(torch: Any) -> float:
    weight = torch.nn.Parameter(torch.ones(1, device="cuda"))
    rate = torch.tensor(0.5, device="cuda")
    optimizer = torch.optim.Adam([weight], lr=rate, foreach=True, capturable=True)
    weight.sum().backward()
    optimizer.step()
    return round(weight.item(), 6)


def facts(torch: Any) -> dict[str, Any]:
    """Answers whose value is known."""
    cuda = torch.cuda
    stream = cuda.current_stream()
    event = stream.record_event()
    held = torch.ones(2**18, device="cuda")  # a MiB
    stats, nested = cuda.memory_stats(), cuda.memory_stats_as_nested_dict()
    cuda.default_generators[0].manual_seed(7)
    first = torch.rand(2, device="cuda").tolist()
    torch.manual_seed(7)
    parts = torch.nn.parallel.scatter({"x": held}, [0])
    cuda.set_sync_debug_mode("warn")
    found = {
        "held": [stats[f"{kind}_bytes.all.current"] for kind in ("allocated", "active")],
        "nested": nested["allocated_bytes"]["all"]["current"] == stats["allocated_bytes.all.current"],
        "counts": [stats["num_alloc_retries"], stats["num_ooms"], nested["num_ooms"]],
        "the module's own": cuda.memory.memory_allocated() == cuda.memory_allocated() > 0,
        "peak": cuda.memory.max_memory_allocated() >= 2**20,
        "seed": cuda.random.initial_seed(),
        "generator": torch.rand(2, device="cuda").tolist() == first,
        "process": [cuda.list_gpu_processes().split()[2] == str(os.getpid()), cuda.list_gpu_processes().split()[-3:]],
        "streams": cuda.current_stream() == cuda.default_stream() != 0,
        "scatter": [len(parts), parts[0]["x"].device.type, torch.equal(parts[0]["x"], held)],
        "scatter from the CPU": torch.nn.parallel.scatter((torch.ones(2), [torch.ones(2)]), [0])[0][1][0].device.type,
        "stream of torch": [held.record_stream(torch.Stream(device=d)) for d in ("cuda", "mps")],
        "event": [isinstance(event, cuda.Event), event.wait(stream), event.record(stream)],
        "the current device": made_in(torch, None),
        "unknown argument": outcome(lambda: held.cuda(colour=1)),
        "autocast off within autocast": autocast_off(torch),
        "learning rate of a captured optimizer": captured(torch),
        "gather": torch.nn.parallel.gather([held[:2], held[:3]], 0).shape[0],
        "replicas": len(torch.nn.parallel.replicate(torch.nn.Linear(2, 2).cuda(), [0])),
        "runtime": [cuda.cudart().cudaProfilerStart(), cuda.cudart().cudaMemGetInfo(0) == cuda.mem_get_info()],
        "sync": cuda.get_sync_debug_mode(),
        "wrong sync": outcome(lambda: cuda.set_sync_debug_mode("loud")),
        "peer": outcome(lambda: cuda.can_device_access_peer(0, 1)),
        "error": outcome(lambda: cuda.check_error(2)),
    }
    cuda.set_per_process_memory_fraction(0.25)
    return {**found, "fraction": cuda.get_per_process_memory_fraction(), "statistics": sorted(stats)}


def main() -> None:
    from patcher import patch_for_mac

    handle = patch_for_mac(simulate="M1 8GB")
    import torch

    found: dict[str, Any] = {"facts": facts(torch)}
    for module in map(importlib.import_module, MODULES):
        names = {name: code for name, code in (ANSWERED | REFUSED).items() if name in module.__all__}
        found[module.__name__] = {name: asked(module, code, torch.cuda, torch) for name, code in names.items()}
    handle.undo()
    found["undone"] = [
        torch.cuda.default_generators == (),
        hasattr(torch._C, "_broadcast"),
        outcome(torch.cuda.MemPool),
        torch.cuda.memory_stats is torch.cuda.memory.memory_stats,
    ]
    Path(sys.argv[1]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
