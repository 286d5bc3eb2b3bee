"""What ``torch.mps.compile_shader`` takes and what it refuses: limits, address spaces, types, and what is no Metal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from patcher.calibration.words import said

AT = "uint i [[thread_position_in_grid]]"
LANE = "uint lane [[thread_index_in_simdgroup]]"


@dataclass(frozen=True)
class Shader:
    """A source, and a call of its kernel ``f``.

    Attributes:
        source: Metal; ``<metal_stdlib>`` is included and its namespace used.
        arguments: makes what ``f`` is called with; the first is the result.
        expected: the elements of the result after the call.
        call: ``threads``, ``group_size`` and the like.
        kernel: the name that is asked for.
    """

    source: str
    arguments: Callable[[], Sequence[Any]] = lambda: [_zeros(32)]
    expected: Sequence[float] | None = None
    call: dict[str, Any] = field(default_factory=dict)
    kernel: str = "f"


def _zeros(count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(count, dtype=dtype, device="mps")


def _numbers(count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.arange(count, device="cpu").to(dtype).to("mps")


def _writes(expression: str, before: str = "", within: str = "") -> Shader:
    """Each thread writes the value of an expression of its number."""
    body = f"kernel void f(device float* o, {AT}) {{ {within} o[i] = {expression}; }}"
    return Shader(f"{before}\n{body}", lambda: [_zeros(4)])


def _does(statements: str, before: str = "") -> Shader:
    """A kernel that is about its statements; it writes 1."""
    body = f"kernel void f(device float* o, {AT}) {{ {statements} o[i] = 1; }}"
    return Shader(f"{before}\n{body}", lambda: [_zeros(4)], [1.0] * 4)


def _grouped(**call: Any) -> Shader:
    return Shader(f"kernel void f(device float* o, {AT}) {{ o[i] = 1; }}", lambda: [_zeros(4096)], call=call)


def _shared(floats: int) -> Shader:
    """A group that shares so many floats."""
    body = (
        f"threadgroup float s[{floats}]; for (uint k = i; k < {floats}; k += 32) {{ s[k] = k; }}"
        f" threadgroup_barrier(mem_flags::mem_threadgroup); o[i] = s[{floats} - 1 - i] + i;"
    )
    return Shader(f"kernel void f(device float* o, {AT}) {{ {body} }}", expected=[float(floats - 1)] * 32)


def _buffers(count: int) -> Shader:
    """A kernel with so many buffers, which adds their first elements."""
    names = [f"b{number}" for number in range(1, count)]
    parameters = ", ".join(f"constant float* {name}" for name in names)
    body = f"kernel void f(device float* o, {parameters}, {AT}) {{ o[i] = {' + '.join(f'{n}[0]' for n in names)}; }}"
    return Shader(
        body, lambda: [_zeros(1), *(torch.ones(1, device="mps") for _ in names)], [float(count - 1)], {"threads": 1}
    )


def _numbered(number: int) -> Shader:
    """A kernel that reads the buffer of this number, of as many as that takes."""
    body = f"kernel void f(device float* o, constant float* a [[buffer({number})]], {AT}) {{ o[i] = a[0]; }}"
    return Shader(body, lambda: [_zeros(1), *(_numbers(1) + k for k in range(1, number + 1))], [float(number)])


def _matrices(element: str, sums: str, dtype: torch.dtype) -> Shader:
    """A product of 8 x 8 matrices of one number each: 8 * 2 * 3 in each place."""
    body = f"""
    kernel void f(device float* o, constant {element}* a, constant {element}* b, device {sums}* c, {LANE}) {{
        simdgroup_matrix<{element}, 8, 8> x, y;
        simdgroup_matrix<{sums}, 8, 8> z = make_filled_simdgroup_matrix<{sums}, 8, 8>(0);
        simdgroup_load(x, a, 8); simdgroup_load(y, b, 8);
        simdgroup_multiply_accumulate(z, x, y, z);
        simdgroup_store(z, c, 8);
        simdgroup_barrier(mem_flags::mem_device);
        o[lane] = c[lane];
    }}"""
    of_sums = {"float": torch.float32, "half": torch.float16, "bfloat": torch.bfloat16}[sums]

    def arguments() -> Sequence[Any]:
        two, three = (torch.full((64,), number, dtype=dtype, device="mps") for number in (2.0, 3.0))
        return [_zeros(32), two, three, _zeros(64, of_sums)]

    return Shader(
        f"#include <metal_simdgroup_matrix>\n{body}", arguments, [48.0] * 32, {"threads": 32, "group_size": 32}
    )


def _atomic(
    kind: str, operation: str, dtype: torch.dtype, expected: float, order: str = "memory_order_relaxed"
) -> Shader:
    """32 threads that change one number in device memory; the argument of each is 1."""
    one = f"{kind.removeprefix('atomic_')}(1)"
    body = f"kernel void f(device {kind}* o, {AT}) {{ atomic_{operation}_explicit(o, {one}, {order}); }}"
    return Shader(body, lambda: [_zeros(1, dtype)], [expected], {"threads": 32})


def _shared_atomic(kind: str, number: str) -> Shader:
    """32 threads that add to one number in threadgroup memory."""
    body = (
        f"threadgroup {kind} s; if (i == 0) {{ atomic_store_explicit(&s, ({number})0, memory_order_relaxed); }}"
        " threadgroup_barrier(mem_flags::mem_threadgroup);"
        f" atomic_fetch_add_explicit(&s, ({number})1, memory_order_relaxed);"
        " threadgroup_barrier(mem_flags::mem_threadgroup); o[i] = atomic_load_explicit(&s, memory_order_relaxed);"
    )
    return Shader(f"kernel void f(device float* o, {AT}) {{ {body} }}", expected=[32.0] * 32)


def _simd(expression: str, expected: Sequence[float]) -> Shader:
    body = f"kernel void f(device float* o, {AT}, {LANE}) {{ o[i] = {expression}; }}"
    return Shader(body, expected=list(expected), call={"threads": 32, "group_size": 32})


_FULL = f"kernel void f(device float* o, constant float& v, {AT}) {{ o[i] = v; }}"
_TEMPLATE = "template <typename T> kernel void g(device T* o, uint i [[thread_position_in_grid]]) { o[i] = T(i) / 2; }"

SHADERS: dict[str, Shader] = {
    # threads of a group
    "threads: 1024 in a group": _grouped(group_size=1024),
    "threads: 1025 in a group": _grouped(group_size=1025),
    "threads: 32 x 32 in a group": _grouped(threads=(64, 64), group_size=(32, 32)),
    "threads: 32 x 32 x 2 in a group": _grouped(threads=(32, 32, 4), group_size=(32, 32, 2)),
    "threads: ragged groups": _grouped(threads=1000, group_size=96),
    "threads: four dimensions": _grouped(threads=(1, 1, 1, 1)),
    "threads: group of other dimensions": _grouped(threads=(8, 8), group_size=8),
    "threads: at most 64, by attribute": Shader(
        f"[[max_total_threads_per_threadgroup(64)]] kernel void f(device float* o, {AT}) {{ o[i] = 1; }}"
    ),
    "threads: 65 of at most 64": Shader(
        f"[[max_total_threads_per_threadgroup(64)]] kernel void f(device float* o, {AT}) {{ o[i] = 1; }}",
        call={"threads": 65, "group_size": 65},
    ),
    "threads: many registers": _writes(
        "x[i & 63]", within="float x[64]; for (int k = 0; k < 64; ++k) { x[k] = k * o[(i + k) & 3]; }"
    ),
    # threadgroup memory
    "threadgroup memory: 32 bytes": _shared(32),
    "threadgroup memory: 32768 bytes": _shared(8192),
    "threadgroup memory: 32772 bytes": _shared(8193),
    # arguments
    "arguments: 31 buffers": _buffers(31),
    "arguments: 32 buffers": _buffers(32),
    "arguments: buffer number 30": _numbered(30),
    "arguments: buffer number 31": _numbered(31),
    "arguments: a float": Shader(_FULL, lambda: [_zeros(2), 2.5], [2.5, 2.5]),
    "arguments: an int as it is": Shader(
        f"kernel void f(device float* o, constant long& v, {AT}) {{ o[i] = v; }}", lambda: [_zeros(2), 7], [7.0, 7.0]
    ),
    "arguments: a list": Shader(
        f"kernel void f(device float* o, constant long* v, {AT}) {{ o[i] = v[i]; }}",
        lambda: [_zeros(3), [3, 4, 5]],
        [3.0, 4.0, 5.0],
    ),
    "arguments: an empty list": Shader(_FULL, lambda: [_zeros(2), []]),
    "arguments: a text": Shader(_FULL, lambda: [_zeros(2), "2"]),
    "arguments: None": Shader(_FULL, lambda: [_zeros(2), None]),
    "arguments: a tensor of the CPU": Shader(_FULL, lambda: [_zeros(2), torch.ones(2)]),
    "arguments: a number of the CPU": Shader(_FULL, lambda: [_zeros(2), torch.tensor(2.5)], [2.5, 2.5]),
    "arguments: an unknown cast": Shader(_FULL, lambda: [_zeros(2), 2.5], call={"arg_casts": "fp8"}),
    "arguments: a cast to half": Shader(
        f"kernel void f(device float* o, constant half& v, {AT}) {{ o[i] = v; }}",
        lambda: [_zeros(2), 2.5],
        [2.5, 2.5],
        {"arg_casts": {1: "fp16"}},
    ),
    "arguments: a view": Shader(
        f"kernel void f(device float* o, constant float* v, {AT}) {{ o[i] = v[i]; }}",
        lambda: [_zeros(2), _numbers(6)[3:]],
        [3.0, 4.0],
    ),
    "arguments: neither tensor nor threads": Shader("kernel void f(constant long& v) {}", lambda: [3]),
    "kernels: another name": Shader(_FULL, kernel="g"),
    # address spaces
    "spaces: pointer without one": _does("float x = 1; float* p = &x; *p = 2;"),
    "spaces: parameter without one": Shader(f"kernel void f(float* o, {AT}) {{ o[i] = 1; }}"),
    "spaces: pointer into its own": _does("thread float x = 1; thread float* p = &x; *p = 2;"),
    "spaces: from device to thread": _does("thread float* p = o; *p = 2;"),
    "spaces: writing to constant": Shader(f"kernel void f(constant float* o, {AT}) {{ o[i] = 1; }}"),
    "spaces: constant of a program": _writes("table[i & 1]", "constant float table[2] = {1, 2};"),
    "spaces: variable of a program": _writes("table[i & 1]", "float table[2] = {1, 2};"),
    "spaces: threadgroup within a function": _writes("g()", "float g() { threadgroup float s; s = 1; return s; }"),
    "spaces: function of a device pointer": _writes("g(o)", "float g(device float* p) { return p[0] + 1; }"),
    "spaces: reference without one": _writes("g(x)", "float g(float& p) { return p; }", "float x = i;"),
    # what is no Metal
    "language: double": _does("double x = 1; o[i] = x;"),
    "language: new": _does("thread float* x = new float(1);"),
    "language: throw": _does("if (i == 77) { throw 1; }"),
    "language: goto": _does("if (i == 77) { goto end; } end: ;"),
    "language: recursion": _writes("g(int(i))", "int g(int n) { return n <= 0 ? 0 : n + g(n - 1); }"),
    "language: virtual": _does("S s; o[i] = s.x();", "struct S { virtual float x() { return 1; } };"),
    "language: function pointer": _writes("p(i)", "float g(float x) { return x; }", "float (*p)(float) = g;"),
    "language: lambda": _writes("g(float(i))", within="auto g = [](float x) { return x + 1; };"),
    "language: thread_local": _does("x = 1;", "thread_local float x;"),
    "language: unknown name": _writes("unknown(i)"),
    "language: missing semicolon": _does("float x = 1"),
    "language: unknown header": _does("", "#include <nothing.h>"),
    "language: vector from too few": _does("float4 a(1, 2, 3);"),
    "language: structured bindings": _does("S s{1, 2}; auto [a, b] = s; o[i] = a + b;", "struct S { float x, y; };"),
    "language: if constexpr": _writes(
        "g<int>()", "template <class T> T g() { if constexpr (sizeof(T) == 4) return 4; return 0; }"
    ),
    "language: fold expression": _writes("g(1, 2, 3)", "template <typename... T> int g(T... x) { return (x + ...); }"),
    "language: concepts": _writes("g(1)", "template <class T> concept C = true; template <C T> T g(T x) { return x; }"),
    "language: literals are float": _writes("exp(i * 1.5)"),
    "language: long integers": _writes("float((long(i) << 40) >> 38)"),
    # templates
    "templates: by host_name": Shader(
        f'{_TEMPLATE}\ntemplate [[host_name("f")]] kernel void g<float>(device float*, uint);',
        lambda: [_zeros(3)],
        [0.0, 0.5, 1.0],
    ),
    "templates: declared before": Shader(
        "template <typename T> kernel void g(device T* o, uint i);\n"
        f'{_TEMPLATE}\ntemplate [[host_name("f")]] kernel void g<half>(device half*, uint);',
        lambda: [_zeros(3, torch.float16)],
        [0.0, 0.5, 1.0],
    ),
    "templates: not instantiated": Shader(_TEMPLATE, kernel="g"),
    "templates: integers": _writes("g<3>(i)", "template <int n> float g(float x) { return x * n; }"),
    # bfloat
    "bfloat: arithmetic": Shader(
        f"kernel void f(device bfloat* o, {AT}) {{ bfloat x = bfloat(i) + bfloat(1.0f); o[i] = x * x; }}",
        lambda: [_zeros(4, torch.bfloat16)],
        [1.0, 4.0, 9.0, 16.0],
    ),
    "bfloat: rounding": Shader(
        f"kernel void f(device bfloat* o, {AT}) {{ o[i] = bfloat(256.0f + float(i)); }}",
        lambda: [_zeros(4, torch.bfloat16)],
        [256.0, 256.0, 258.0, 260.0],
    ),
    "bfloat: vectors": _writes("float(x.w)", within="bfloat4 x = bfloat4(bfloat(i)); x += x;"),
    "bfloat: with half": _writes("float(x + y)", within="half x = i; bfloat y = bfloat(i);"),
    "bfloat: from float, unsaid": _does("float x = 1; bfloat y = x; o[i] = y;"),
    "bfloat: literal": _writes("float(1.5bf)"),
    "bfloat: exponential": _writes("float(exp(bfloat(i)))"),
    # simdgroups
    "simdgroups: sum": _simd("simd_sum(float(lane))", [496.0] * 32),
    "simdgroups: prefix": _simd("simd_prefix_exclusive_sum(1.0f)", range(32)),
    "simdgroups: shuffle": _simd("simd_shuffle_xor(float(lane), 1)", [lane ^ 1 for lane in range(32)]),
    "simdgroups: sum of bfloat": _simd("float(simd_sum(bfloat(1)))", [32.0] * 32),
    "simdgroups: sum of long": _simd("float(simd_sum(long(1)))", [32.0] * 32),
    "simdgroups: quad": _simd("quad_sum(1.0f)", [4.0] * 32),
    "simdgroups: ballot": _simd("float(popcount(uint(ulong(simd_ballot(lane < 5)))))", [5.0] * 32),
    "simdgroups: matrices of float": _matrices("float", "float", torch.float32),
    "simdgroups: matrices of half": _matrices("half", "half", torch.float16),
    "simdgroups: matrices of bfloat": _matrices("bfloat", "bfloat", torch.bfloat16),
    "simdgroups: matrices of half, sums of float": _matrices("half", "float", torch.float16),
    "simdgroups: matrices of bfloat, sums of float": _matrices("bfloat", "float", torch.bfloat16),
    "simdgroups: matrices of int": _matrices("int", "float", torch.int32),
    # atomics
    "atomics: int": _atomic("atomic_int", "fetch_add", torch.int32, 32),
    "atomics: uint maximum": _atomic("atomic_uint", "fetch_max", torch.int32, 1),
    "atomics: float": _atomic("atomic_float", "fetch_add", torch.float32, 32),
    "atomics: float maximum": _atomic("atomic_float", "fetch_max", torch.float32, 1),
    "atomics: float exchange": _atomic("atomic_float", "exchange", torch.float32, 1),
    "atomics: ulong maximum": _atomic("atomic_ulong", "max", torch.int64, 1),
    "atomics: ulong addition": _atomic("atomic_ulong", "fetch_add", torch.int64, 32),
    "atomics: acquire and release": _atomic("atomic_int", "fetch_add", torch.int32, 32, "memory_order_acq_rel"),
    "atomics: int in a group": _shared_atomic("atomic_int", "int"),
    "atomics: float in a group": _shared_atomic("atomic_float", "float"),
    # torch's own headers
    "torch: c10/metal/utils.h": _writes("c10::metal::div(float(i), 2.0f)", "#include <c10/metal/utils.h>"),
    "torch: an error buffer": Shader(
        f"#include <c10/metal/error.h>\nkernel void f(device float* o, device c10::metal::ErrorMessages* e, {AT})"
        ' { if (i == 1) { TORCH_REPORT_ERROR(e, "wrong"); } o[i] = 1; }',
        lambda: [_zeros(2)],
        call={"error_buf_idx": 1},
    ),
}


def cases() -> list[str]:
    """The shaders by name."""
    return list(SHADERS)


def run(case: str) -> dict[str, Any]:
    """Compiles and calls a shader.

    Returns:
        ``outcome``: ``"runs"``, ``"wrong"`` (the result is not what is expected) or ``"refused"``. Of what runs:
        ``threads``, ``width`` and ``shared``, as the kernel has them, the last in bytes. Of what is refused: ``stage``
        (``"compile"``, ``"kernel"``, ``"call"`` or ``"wait"``), ``kind`` (the exception's class) and ``text``, the
        first line that tells of an error.
    """
    shader = SHADERS[case]
    stage = "compile"
    try:
        library = torch.mps.compile_shader(f"#include <metal_stdlib>\nusing namespace metal;\n{shader.source}")
        stage = "kernel"
        kernel = getattr(library, shader.kernel)
        figures = {"threads": kernel.max_threads_per_threadgroup, "width": kernel.thread_execution_width}
        stage = "call"
        arguments = shader.arguments()
        kernel(*arguments, **shader.call)
        stage = "wait"
        torch.mps.synchronize()
        figures["shared"] = kernel.static_thread_group_memory_length
        found = arguments[0].cpu().float().tolist() if isinstance(arguments[0], Tensor) else None
    except Exception as error:  # noqa: BLE001 - each way to refuse is of interest
        return {"outcome": "refused", "stage": stage, "kind": type(error).__name__, "text": _complaint(error)}
    if shader.expected is not None and found != list(shader.expected):
        return {"outcome": "wrong", "text": f"{found} instead of {list(shader.expected)}"[:300], **figures}
    return {"outcome": "runs", **figures}


def _complaint(error: Exception) -> str:
    """The line of a compiler's message that has the error, else the first one."""
    lines = [line for line in str(error).splitlines() if "error:" in line]
    return said(type(error)(lines[0])) if lines else said(error)
