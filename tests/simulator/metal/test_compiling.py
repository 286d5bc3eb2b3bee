"""Errors of a source, the cache, and machines without a compiler."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest
import torch

from patcher.errors import SimulatorUnavailable
from patcher.simulator import Device
from patcher.simulator.metal import compile_shader, toolchain, translate
from tests.process import run_python

FULL = "kernel void full(device float* out, constant float& v, uint i [[thread_position_in_grid]]) { out[i] = v; }\n"


@pytest.mark.parametrize(
    ("source", "line", "message"),
    [
        ("kernel void f(device float* o) {\n  o[0] = unknown(1);\n}", 2, "use of undeclared identifier 'unknown'"),
        ("\n\n#define TWO 2\nkernel void f(device float* o) {\n  o[0] = TWO\n}", 5, "expected ';'"),
        ("// a\n/* b\n */\nkernel void f(constant float* o) { o[0] = 1; }", 4, "not assignable"),
        ("kernel void f(device float* o) {\n  threadgroup float a[4],\n    b[4];\n  o[0] = a[0] + c;\n}", 4, "'c'"),
        ("#if 1\nkernel void f(device float* o) {}\n", 1, "unterminated conditional directive"),
        ("#include <nothing.h>\nkernel void f(device float* o) {}\n", 1, "file not found"),
        ("struct S { float a; };\nkernel void f(device S* o) {\n  o->b = 1;\n}", 3, "no member named 'b'"),
        ("kernel void f(device float* o) {\n  float4 a(1, 2, 3);\n  o[0] = a.x;\n}", 2, "error"),
    ],
)
def test_syntax_errors_have_the_lines_of_the_source(source: str, line: int, message: str) -> None:
    """SyntaxError, as torch raises it, with Metal's name for the source and the right line."""
    with pytest.raises(SyntaxError) as caught:
        torch.mps.compile_shader(source)
    text = str(caught.value)
    assert f"program_source:{line}:" in text and message in text


@pytest.mark.parametrize(
    ("declaration", "message"),
    [
        ("float x, uint i [[thread_position_in_grid]]", "invalid type of parameter 'float x'"),
        (
            "device float* o, threadgroup float* s [[threadgroup(0)]]",
            "'s' is threadgroup memory that the host allocates",
        ),
    ],
)
def test_parameters_that_cannot_be_passed(declaration: str, message: str) -> None:
    """A kernel takes buffers and positions; memory that the host allocates has no place in torch's interface."""
    with pytest.raises(SyntaxError, match=message):
        compile_shader(f"kernel void f({declaration}) {{}}")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own, with the runtime of the user's."""
    runtime = toolchain.runtime_library()
    monkeypatch.setenv("PATCHER_CACHE", str(tmp_path))
    monkeypatch.setattr(toolchain, "runtime_library", lambda: runtime)
    return tmp_path / "metal-on-cpu"


def test_a_shader_is_compiled_once(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time, no compiler runs; other source, constants or check mode are other entries."""
    compile_shader(FULL)
    monkeypatch.setattr(toolchain, "_run", _refuse)
    begin = time.perf_counter()
    compile_shader(FULL)
    assert time.perf_counter() - begin < 0.1
    for source, keywords in ((FULL + "\n", {}), (FULL, {"constants": {0: 1}}), (FULL, {"check": True})):
        with pytest.raises(AssertionError, match="the compiler was called"):
            compile_shader(source, **keywords)
    assert not list(own_cache.glob("building-*"))


def _refuse(*_: object) -> str:
    raise AssertionError("the compiler was called")


def test_the_key_holds_what_translates() -> None:
    """A change in any file that shapes the C++ makes other entries of the cache."""
    folder = Path(toolchain.__file__).parent
    others = {"__init__.py", "arguments.py", "library.py"}
    assert {path.name for path in folder.glob("*.py")} == others | set(toolchain.TRANSLATORS)


def test_literals_are_float() -> None:
    """``x * 0.1`` is a product of floats, and ``exp`` of one is not ambiguous: Metal has no double."""
    source = """
        #include <metal_stdlib>
        template <typename T> kernel void scale(device T* o, device T* e, constant T* x,
                                                uint i [[thread_position_in_grid]]) {
            o[i] = x[i] * 0.1;
            e[i] = metal::exp(x[i] * 1.5e-1 + .5);
        }
        template [[host_name("scale")]] kernel void scale<float>(device float*, device float*, constant float*, uint);
    """
    x = torch.arange(1.0, 100.0)
    product, exponential = torch.empty(99, device="mps"), torch.empty(99, device="mps")
    compile_shader(source).scale(product, exponential, x.to("mps"))
    assert torch.equal(product.cpu(), x * torch.tensor(0.1))
    assert not torch.equal(product.cpu(), (x.double() * 0.1).float())
    assert torch.allclose(exponential.cpu().double(), (x.double() * 0.15 + 0.5).exp(), rtol=4e-6)  # 15 * 2^-23, twice


def test_hints_to_unroll_loops_are_left_out() -> None:
    """However they are written; lines stay where they are, and nothing else is left out."""
    source = (
        "#pragma unroll\nkernel void f(device int* o) {\n"
        '  _Pragma("clang loop unroll(full)") for (int i = 0; i < 9; ++i)\n'
        "    o[i] = i;\n}\nvoid g() { unknown(); }"
    )
    with pytest.raises(SyntaxError, match="program_source:6:"):
        torch.mps.compile_shader(source)
    text, _ = translate.translate(source, {})
    assert "#pragma" not in text and "for (int i = 0; i < 9; ++i)" in text


def test_a_kernel_may_be_declared_before_it_is_defined() -> None:
    """As torch's own <c10/metal/indexing.h> does, whose parameters have no attributes where it is declared."""
    source = """
        #include <c10/metal/indexing.h>
        template <typename T> kernel void copy(device T* o, constant T* x, uint i);
        template <typename T> kernel void copy(device T* o, constant T* x, uint i [[thread_position_in_grid]]) {
            o[i] = x[i];
        }
        template [[host_name("copy")]] kernel void copy<float>(device float*, constant float*, uint);
    """
    out = torch.zeros(3, device="mps")
    torch.mps.compile_shader(source).copy(out, torch.arange(3.0, device="mps"))
    assert out.tolist() == [0, 1, 2]


def test_a_failed_compilation_leaves_nothing(own_cache: Path) -> None:
    """An error is not remembered, and no half-made entry is left."""
    with pytest.raises(SyntaxError):
        compile_shader("kernel void f(device float* o) { o[0] = ; }")
    assert [path.name for path in own_cache.iterdir() if path.name != "zig"] == []


def test_another_process_may_be_faster(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes that compile the same at once both succeed."""
    put = toolchain._put

    def put_twice(scratch: Path, final: Path) -> None:
        final.mkdir()
        for path in scratch.iterdir():
            (final / path.name).write_bytes(path.read_bytes())
        put(scratch, final)

    monkeypatch.setattr(toolchain, "_put", put_twice)
    out = torch.zeros(3, device="mps")
    compile_shader(FULL).full(out, 2.0)
    assert out.tolist() == [2.0] * 3


def test_the_language_is_that_of_the_macos(unlimited: Device) -> None:
    """Metal 3.2 on macOS 15, Metal 4 on macOS 26; each has its own compiled shader."""
    source = "kernel void version(device int* out) { out[0] = __METAL_VERSION__; }"
    before = unlimited.mac
    found = []
    for macos in ((15, 5), (26, 0)):
        unlimited.become(dataclasses.replace(before, macos=macos))
        out = torch.zeros(1, dtype=torch.int32, device="mps")
        compile_shader(source).version(out)
        found.append(out.item())
    unlimited.become(before)
    assert found == [320, 400]


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install; it comes when a shader is compiled, not before."""
    monkeypatch.setattr(toolchain.shutil, "which", lambda _: None)
    monkeypatch.setattr(toolchain.importlib.util, "find_spec", lambda _: None)
    toolchain.compiler.cache_clear()
    try:
        with pytest.raises(SimulatorUnavailable, match="clang\\+\\+ 17 or newer") as caught:
            compile_shader(FULL)
        assert "pip install ziglang" in str(caught.value)
    finally:
        toolchain.compiler.cache_clear()


def test_an_old_clang_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clang++ on PATH that is too old for arithmetic in bfloat is not taken."""
    old = tmp_path / "clang++"
    old.write_text("#!/bin/sh\necho 'Debian clang version 14.0.6'\n")
    old.chmod(0o755)
    monkeypatch.setattr(toolchain.shutil, "which", lambda name: str(old) if name == "clang++" else None)
    toolchain.compiler.cache_clear()
    try:
        assert toolchain.compiler().zig
        old.write_text("#!/bin/sh\necho 'Ubuntu clang version 19.1.7 (++20250114)'\n")
        toolchain.compiler.cache_clear()
        assert toolchain.compiler().command == (str(old),)
    finally:
        toolchain.compiler.cache_clear()


def test_the_device_starts_without_looking_for_a_compiler() -> None:
    """Nothing of the shader compiler is imported before the first shader."""
    code = (
        "import sys, torch\nfrom patcher.simulator import start\nstart()\ntorch.ones(2, device='mps').sum().item()\n"
        "assert 'patcher.simulator.metal' in sys.modules\n"
        "assert not [name for name in sys.modules if name.startswith('patcher.simulator.metal.')]\n"
    )
    run_python("-c", code)


def test_overloads_for_constant_and_for_device_memory() -> None:
    """``constant void*`` and ``device const void*`` are the same to C++, as in torch 2.14's <c10/metal/indexing.h>."""
    source = """
        template <typename T> T at(constant void* p, uint i) { return static_cast<constant T*>(p)[i]; }
        template <typename T> T at(device const void* p, uint i) { return static_cast<device const T*>(p)[i]; }
        template <typename T> device T& at(device void* p, uint i) { return static_cast<device T*>(p)[i]; }
        kernel void add(device float* o, constant float* x, device const float* y, uint i [[thread_position_in_grid]]) {
            at<float>(o, i) = at<float>(x, i) + at<float>(y, i);
        }
    """
    out, x = torch.zeros(3, device="mps"), torch.arange(3.0, device="mps")
    torch.mps.compile_shader(source).add(out, x, x)
    assert out.tolist() == [0, 2, 4]


def test_an_instantiation_names_its_template_from_outside_and_leaves_arguments_to_be_deduced() -> None:
    """As torch 2.15's REGISTER_TERNARY_OP does: the parameters tell T0, which has another default."""
    source = """
        namespace own {
        template <typename T, typename T0 = T>
        kernel void scale(device T* o, constant T0* x, uint i [[thread_position_in_grid]]) { o[i] = x[i] * 2; }
        }
        template [[host_name("scale")]] kernel void ::own::scale<float>(
            device float* o, constant int* x, uint i [[thread_position_in_grid]]);
    """
    out = torch.zeros(3, device="mps")
    torch.mps.compile_shader(source).scale(out, torch.arange(3, dtype=torch.int32, device="mps"))
    assert out.tolist() == [0, 2, 4]


def test_half_and_bfloat_are_cast_to_each_other() -> None:
    """By a cast in a template too, as in torch's cast_to; half has more digits, bfloat a larger range."""
    source = """
        template <typename T, typename U> T to(U x) { return static_cast<T>(x); }
        kernel void there_and_back(device bfloat* b, device half* h, constant half* x, constant bfloat* y,
                                   uint i [[thread_position_in_grid]]) {
            b[i] = to<bfloat>(x[i]);
            h[i] = static_cast<half>(y[i]);
        }
    """
    x = torch.tensor([1 + 2**-10, 3, -65504])
    b, h = torch.zeros(3, dtype=torch.bfloat16, device="mps"), torch.zeros(3, dtype=torch.half, device="mps")
    torch.mps.compile_shader(source).there_and_back(b, h, x.half().to("mps"), (x * 2).bfloat16().to("mps"))
    assert b.tolist() == x.bfloat16().tolist()
    assert h.tolist() == (x * 2).bfloat16().half().tolist() == [2, 6, float("-inf")]


REGISTERED = """
    #include <c10/metal/indexing.h>
    struct twice_functor { template <typename T> T operator()(const T x) { return x + x; } };
    struct plus_functor { template <typename T> T operator()(const T a, const T b) { return a + b; } };
    REGISTER_UNARY_OP(twice, half, half);
    REGISTER_BINARY_OP(plus, long, long);
"""


def test_kernels_that_torchs_macros_register() -> None:
    """An operator written with torch's own <c10/metal/indexing.h>: some thirty instantiations of its templates."""
    library = torch.mps.compile_shader(REGISTERED)
    x, out = torch.arange(5, device="mps"), torch.zeros(5, dtype=torch.int64, device="mps")
    library.plus_dense_long_long(out, x, x + 1, 5, threads=5)
    assert out.tolist() == [1, 3, 5, 7, 9]
    assert "twice_strided_half_half" in dir(library)
