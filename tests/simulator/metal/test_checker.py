"""The check mode finds what a GPU would not tell: races, accesses out of bounds, memory that nobody has written."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch

from patcher.simulator.metal import CHECK, compile_shader
from patcher.simulator.metal.library import ShaderLibrary
from tests.simulator.metal.kernels import SMALL_CONSTANTS, filled, normal, source

FAULTS = """#include <metal_stdlib>
using namespace metal;
kernel void beyond(device float* o, constant float* x, uint i [[thread_position_in_grid]]) {
  o[i] = x[i + 1];
}
kernel void before(device float* o, uint i [[thread_position_in_grid]]) {
  o[int(i) - 1] = 1;
}
kernel void race(device float* o, uint i [[thread_position_in_grid]]) {
  o[i / 2] = i;
}
kernel void across(device float* o, uint i [[thread_position_in_grid]], uint g [[threadgroup_position_in_grid]]) {
  if (i % 32 == 0) o[0] += g;
}
kernel void group_bounds(device float* o, uint i [[thread_position_in_threadgroup]]) {
  threadgroup float a[32], b[32];
  b[i] = 0;
  a[i + 1] = i;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  o[i] = a[i] + b[i];
}
kernel void unwritten(device float* o, uint i [[thread_position_in_threadgroup]]) {
  threadgroup float a[64];
  if (i < 30) a[i] = i;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  o[i] = a[i];
}
kernel void readers(device float* o, uint i [[thread_position_in_threadgroup]]) {
  threadgroup float a[64];
  a[i] = i;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  o[i] = a[i] + a[(i + 32) % 64];
  a[i] = 0;
}
"""
CORRECT = """#include <metal_stdlib>
using namespace metal;
kernel void same_value(device float* o, uint i [[thread_position_in_grid]]) {
  threadgroup float flag[1];
  flag[0] = 3;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  o[i] = flag[0];
}
kernel void by_simdgroup(device float* o, uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
  threadgroup float a[64];
  a[i] = i;
  simdgroup_barrier(mem_flags::mem_threadgroup);
  o[i] = a[i / 32 * 32 + (lane + 1) % 32];
  simdgroup_barrier(mem_flags::mem_threadgroup);
  a[i] = 1;
}
kernel void counter(device atomic_int* o, uint i [[thread_position_in_grid]]) {
  atomic_fetch_add_explicit(o, 1, memory_order_relaxed);
}
"""


@pytest.mark.parametrize(
    ("kernel", "arguments", "message"),
    [
        ("beyond", 2, "program_source:4: a read of 4 bytes of device memory by thread .* is out of bounds"),
        ("before", 1, "program_source:7: a write of 4 bytes of device memory by thread .* is out of bounds"),
        ("race", 1, "program_source:10: a write of 4 bytes of device memory by thread .* races with a write"),
        ("across", 1, "program_source:13: a write of 4 bytes of device memory by thread .* races with a write"),
        ("group_bounds", 1, "program_source:18: a write of 4 bytes of threadgroup memory .* is out of bounds"),
        ("unwritten", 1, "program_source:26: a read of 4 bytes of threadgroup memory .* finds what nobody has written"),
        ("readers", 1, "program_source:32: a read of 4 bytes of threadgroup memory .* races with a write"),
    ],
)
def test_faults_are_found(kernel: str, arguments: int, message: str) -> None:
    """Each kind of fault is reported with its line of the source."""
    lib = compile_shader(FAULTS, check=True)
    threads = 32 if kernel == "group_bounds" else 64
    tensors = [torch.zeros(threads, device="mps") for _ in range(arguments)]
    group = 32 if kernel == "across" else threads
    with pytest.raises(RuntimeError, match=f"{kernel}: {message}"):
        getattr(lib, kernel)(*tensors, threads=threads, group_size=group)


@pytest.mark.parametrize("kernel", ["same_value", "by_simdgroup", "counter"])
def test_what_is_correct_is_not_reported(kernel: str) -> None:
    """Equal values written by all, order by simdgroup barriers, atomics."""
    out = torch.zeros(64, dtype=torch.int32 if kernel == "counter" else torch.float32, device="mps")
    getattr(compile_shader(CORRECT, check=True), kernel)(out, threads=64)
    assert out[0].item() == {"same_value": 3, "by_simdgroup": 1, "counter": 64}[kernel]


def test_switched_on_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """PATCHER_METAL_CHECK=1 checks shaders that torch.mps.compile_shader compiles."""
    monkeypatch.setenv(CHECK, "1")
    lib = torch.mps.compile_shader(FAULTS)
    with pytest.raises(RuntimeError, match="out of bounds"):
        lib.beyond(torch.zeros(8, device="mps"), torch.zeros(8, device="mps"), threads=8)


# ---- mutants of the hand-written shaders


def _rms_norm(lib: ShaderLibrary) -> tuple[torch.Tensor, torch.Tensor]:
    x, out = normal(3, 300), filled(3, 300)
    lib.rms_norm_float(out, x, 300, 0.0, threads=3 * 96, group_size=96)
    return out, x.cpu() * torch.rsqrt(x.cpu().pow(2).mean(-1, keepdim=True))


def _softmax(lib: ShaderLibrary) -> tuple[torch.Tensor, torch.Tensor]:
    x, out = normal(2, 333), filled(2, 333)
    lib.softmax(out, x, 333, threads=[128, 2], group_size=[128, 1])
    return out, x.cpu().softmax(-1)


def _gemm(lib: ShaderLibrary) -> tuple[torch.Tensor, torch.Tensor]:
    a, b, c = normal(40, 50), normal(50, 33), filled(40, 33)
    lib.gemm_float(c, a, b, [40, 33, 50], threads=[256, 2, 1], group_size=[128, 1, 1], arg_casts="int32")
    return c, a.cpu() @ b.cpu()


def _attention(lib: ShaderLibrary) -> tuple[torch.Tensor, torch.Tensor]:
    q, k, v, out = normal(1, 27, 32), normal(1, 32, 27).view(1, 27, 32), normal(27, 32)[None], filled(1, 27, 32)
    lib.attention_float_32(out, q, k, v, 27, 32**-0.5, threads=[128, 1], group_size=[64, 1], arg_casts={4: "int32"})
    wide = [x.cpu()[None] for x in (q, k, v)]
    return out, torch.nn.functional.scaled_dot_product_attention(*wide, is_causal=True)[0]


Run = Callable[[ShaderLibrary], tuple[torch.Tensor, torch.Tensor]]
RUNS: dict[str, tuple[str, Run]] = {
    "rms_norm": ("rows", _rms_norm),
    "softmax": ("rows", _softmax),
    "gemm": ("gemm", _gemm),
    "flash_attention": ("flash_attention", _attention),
}
BARRIER = re.compile(r"(?:threadgroup|simdgroup)_barrier\(mem_flags::mem_threadgroup\);")
INDEX_MUTANTS = (
    ("rms_norm", "out[row * n + i] = T", "out[row * n + i + 1] = T"),
    ("rms_norm", "in[row * n + i];", "in[row * n + i + 1];"),
    ("rms_norm", "partial[simdgroup] = sum", "partial[simdgroup + 1] = sum"),
    ("rms_norm", "(threads + 31) / 32", "threads / 32 + 1"),
    (
        "softmax",
        "for (long i = tid; i < n; i += 128) {\n    largest",
        "for (long i = tid; i <= n; i += 128) {\n    largest",
    ),
    ("gemm", "row + 8 * i) * depth", "row + 8 * i + 1) * depth"),
    ("gemm", "all(at < mnk.xz)", "true"),
    ("gemm", "if (all(at < mnk.xy)) {", "if (true) {"),
    ("gemm", "b_tile + d * tile", "b_tile + (d + 1) * tile"),
    ("flash_attention", "own_queries + d, D", "own_queries + d + 1, D"),
    ("flash_attention", "uint2(0, 1) > uint2", "uint2(0, 1) >= uint2"),
    ("flash_attention", "key < min(n, first + 16)", "key < min(n, first + 8)"),
    ("flash_attention", "scales[row] = 1.0f", "scales[row + 1] = 1.0f"),
)


def _section(name: str, text: str) -> tuple[int, int]:
    """Where the kernel stands in its file: rows.metal has two."""
    if name == "softmax":
        return text.index("// Softmax"), len(text)
    return 0, text.index("// Softmax") if name == "rms_norm" else len(text)


def _mutants() -> list[tuple[str, str, str]]:
    mutants = []
    for name, (file, _) in RUNS.items():
        text = source(file)
        begin, end = _section(name, text)
        for i, match in enumerate(BARRIER.finditer(text, begin, end)):
            mutants.append((name, f"barrier{i}", text[: match.start()] + ";" + text[match.end() :]))
    for i, (name, old, new) in enumerate(INDEX_MUTANTS):
        text = source(RUNS[name][0])
        if old != new:
            assert text.count(old) >= 1, old
            mutants.append((name, f"index{i}", text.replace(old, new, 1)))
    return mutants


def _caught(name: str, text: str) -> bool:
    """Whether the checker reports something, or the result is wrong."""
    lib = compile_shader(text, check=True, constants=SMALL_CONSTANTS)
    try:
        found, expected = RUNS[name][1](lib)
    except RuntimeError:
        return True
    return not torch.allclose(found.cpu(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", RUNS)
def test_the_shaders_are_clean(name: str) -> None:
    """No report, and the right result, for the shaders as they are."""
    assert not _caught(name, source(RUNS[name][0]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "mutation", "text"), _mutants(), ids=lambda value: value if len(str(value)) < 30 else ""
)
def test_mutants_are_caught(name: str, mutation: str, text: str) -> None:
    """A barrier removed, or an index off by one, does not go unnoticed."""
    assert _caught(name, text), mutation
