"""What Apple's compiler refuses is refused here too, although C++ would take it."""

from __future__ import annotations

import pytest
import torch

from patcher.simulator.metal import compile_shader


def _kernel(body: str, before: str = "") -> str:
    parameters = "device float* o, constant float* c, uint i [[thread_position_in_grid]]"
    return f"{before}\nkernel void f({parameters}) {{\n{body}\n}}"


def test_atomic_numbers_of_64_bits_have_limits_only() -> None:
    """A minimum and a maximum, which give nothing back."""
    parameters = "device atomic_ulong* o, constant ulong* x, uint i [[thread_position_in_grid]]"
    source = f"#include <metal_stdlib>\nusing namespace metal;\nkernel void f({parameters}) {{ BODY }}"
    lib = compile_shader(source.replace("BODY", "atomic_max_explicit(o, x[i], memory_order_relaxed);"))
    largest = torch.zeros(1, dtype=torch.int64, device="mps")
    lib.f(largest, torch.tensor([3, 2**40, 5], device="mps"), threads=3)
    assert largest.item() == 2**40
    for call in ("atomic_fetch_add_explicit", "atomic_fetch_max_explicit"):
        with pytest.raises(SyntaxError, match=f"no matching function for call to '{call}'"):
            compile_shader(source.replace("BODY", f"{call}(o, x[i], memory_order_relaxed);"))


@pytest.mark.parametrize(
    ("source", "line", "message"),
    [
        (_kernel("double x = 1; o[i] = x;"), 3, "'double' is not supported in Metal"),
        (_kernel("o[i] = *new float(1);"), 3, "Metal has no operator new"),
        (_kernel("goto end; end: o[i] = 1;"), 3, "Metal has no goto statement"),
        (_kernel("o[i] = g(3);", "float g(int n) { return n ? g(n - 1) : 1; }"), 1, "'g' comes back to itself"),
        (
            _kernel(
                "o[i] = g(3);", "float h(int n);\nfloat g(int n) { return h(n); }\nfloat h(int n) { return g(n); }"
            ),
            2,
            "recursive function calls are not supported",
        ),
        (_kernel("constant float* p = o; o[i] = p[0];"), 3, "a pointer into 'constant' memory with one into 'device'"),
        (_kernel("float* p = o + i; p[0] = 1;"), 3, "a pointer into 'thread' memory with one into 'device'"),
        (_kernel("float v = c[i]; float* p = &v; o[i] = *p;"), 3, "explicit address space qualifier: 'p'"),
        (_kernel("float v = c[i]; o[i] = g(&v);", "float g(const float* p) { return *p; }"), 1, "qualifier: 'p'"),
        (_kernel("const device float* p = c; o[i] = p[0];"), 3, "into 'device' memory with one into 'constant'"),
        ("kernel void f(float* o) { o[0] = 1; }", 1, "explicit address space qualifier: 'o'"),
        ("kernel void f(float& o) { o = 1; }", 1, "parameter 'float&o' has no address space"),
    ],
)
def test_refused(source: str, line: int, message: str) -> None:
    """The line and the reason."""
    with pytest.raises(SyntaxError, match=f"program_source:{line}: error: .*") as caught:
        compile_shader(source)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        _kernel("device float* p = o + i; p[0] = 1; const device float* q = p; o[i] = q[0];"),
        _kernel(
            "threadgroup float s[4]; threadgroup float* p = s; float a[2]; thread float* q = a; o[i] = p[0] + q[0];"
        ),
        _kernel("float x = c[i] * 2; float y = x; thread float* p = &x; o[i] = *p * y;"),
        _kernel("o[i] = g(1);", "float g(float x) { return x; }\nfloat g(int n) { return g(float(n)); }"),
        _kernel("o[i] = exp(S{1});", "struct S { float x; };\nfloat exp(S s) { return exp(s.x); }"),
        _kernel("S s; o[i] = s.f(2);", "struct S { S() = default; S(int) = delete; float f(int n) { return n; } };"),
        _kernel('o[i] = 1; // double new goto\n/* double */ constant char* s = "double";'),
    ],
)
def test_allowed(source: str) -> None:
    """Nothing is refused for looking like it."""
    compile_shader(source)
