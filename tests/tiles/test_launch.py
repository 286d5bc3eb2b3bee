"""``kernel[grid](...)``: arguments, specialisation, the grid, tuning, and what is refused."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from patcher.changes import changes_of
from patcher.engine.imports import Finder
from patcher.errors import KernelFailed, KernelNotSupported, LaunchRefused
from tests.process import run_python
from tests.tiles.jit import Jit, jit, tl


@jit
def fill(x, value, n, BLOCK: tl.constexpr = 4):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(x + at, value, at < n)


def test_a_program_is_made_once_for_each_kind_of_arguments() -> None:
    """Types and constants decide; the integer 1 is a constant, True and 1.0 are others."""
    kernel = Jit(fill.fn)
    x = torch.zeros(8)
    made = [kernel.compile(x, value, n) for value, n in ((2.5, 8), (3.5, 7), (2, 8), (1, 8), (True, 8), (1, 2**40))]
    assert made[0] is made[1] and len({id(program) for program in made}) == 5
    types = [[str(value.type) for _, value in program.arguments] for program in made]
    assert types[0] == ["*fp32", "fp32", "int32"] and types[2] == ["*fp32", "int32", "int32"]
    assert types[3] == ["*fp32", "int32"] and types[4] == ["*fp32", "int1", "int32"]
    assert types[5] == ["*fp32", "int64"]
    wide = torch.zeros(2, dtype=torch.uint64)
    kernel[(1,)](wide, 2**64 - 3, 2)
    assert wide.tolist() == [2**64 - 3] * 2
    kept = Jit(fill.fn, fixed=("value",)).compile(x, 1, 8)
    assert [name for name, _ in kept.arguments] == ["x", "value", "n"]


@jit
def parts(x, constant: tl.constexpr, pair: tl.constexpr):
    tl.store(x, tl.load(x) / constant)
    tl.store(x + 1, pair[0] / 2)


def test_constants_that_are_equal_make_programs_of_their_own() -> None:
    """0.0 and -0.0 are equal to Python, and so are 1, 1.0 and True, also within tuples."""
    for constant in (0.0, -0.0):
        x = torch.ones(2)
        parts[(1,)](x, constant, (1,))
        assert x[0] == (-torch.inf if str(constant) == "-0.0" else torch.inf)
    made = {id(parts.compile(torch.zeros(2), 2.0, pair)) for pair in ((1,), (1.0,), (True,), (1,))}
    assert len(made) == 3


@jit
def widened(x):
    tl.store(x, tl.load(x).to(tl.float64))


def raising(error: Exception) -> Any:
    def refuse(*_: Any) -> torch.Tensor:
        raise error

    return refuse


@pytest.mark.parametrize(
    "error", [TypeError("no such type"), RuntimeError("no such type"), NotImplementedError("no such type")]
)
def test_what_torch_refuses_is_an_error_with_a_place(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """As float64 on mps, where torch says no more than that it has none."""
    monkeypatch.setattr("patcher.tiles.on_torch.executor.cast", raising(error))
    with pytest.raises(KernelFailed, match=r"(?s)widened failed: no such type.*test_launch\.py:\d+.*cast") as raised:
        widened[(1,)](torch.zeros(1, dtype=torch.float32))
    assert raised.value.__cause__ is error


def test_out_of_memory_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts catch it by its type; a note has the place."""
    monkeypatch.setattr(
        "patcher.tiles.on_torch.executor.cast", raising(torch.OutOfMemoryError("MPS backend out of memory"))
    )
    with pytest.raises(torch.OutOfMemoryError) as raised:
        widened[(1,)](torch.zeros(1, dtype=torch.float32))
    assert any("widened" in note and "test_launch.py:" in note for note in raised.value.__notes__)


def pretend_shaders_compile(monkeypatch: pytest.MonkeyPatch, function: Callable[..., None]) -> None:
    """Every shader is admitted, and compiles to ``function``."""

    class Library:
        def __getattr__(self, name: str) -> Callable[..., None]:
            return function

    function.max_threads_per_threadgroup = 1024  # type: ignore[attr-defined]
    monkeypatch.setattr("patcher.tiles.backends.why_not", lambda device: "")
    monkeypatch.setattr("torch.mps.compile_shader", lambda source: Library())
    monkeypatch.setattr("patcher.tiles.on_metal.Launcher.admitted", (1 << 16,) * 3)


def test_what_a_shader_is_refused_is_an_error_with_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch says what it does not take, and not which kernel that is."""

    def refused(*_: Any, **__: Any) -> None:
        raise RuntimeError("not this")

    pretend_shaders_compile(monkeypatch, refused)
    with pytest.raises(KernelFailed, match=r"(?s)fill failed as a Metal shader: not this.*test_launch\.py:\d+"):
        Jit(fill.fn)[(1,)](torch.zeros(4), 1.0, 4)


def test_grids() -> None:
    """A tuple of one to three, a list, a number, or a function of the arguments; 0 programs do nothing."""
    for grid in ((2,), [2], 2, (2, 1), (2, 1, 1), lambda meta: (meta["n"] // meta["BLOCK"],)):
        x = torch.zeros(8)
        fill[grid](x, 2.5, 8)
        assert x.eq(2.5).all()
    x = torch.zeros(8)
    fill[(0,)](x, 2.5, 8)
    assert not x.any()


def test_options_of_the_compiler_change_nothing() -> None:
    """num_warps and its like are accepted by name, and a parameter of such a name is a parameter."""
    x = torch.zeros(8)
    fill[(2,)](x, 2.5, 8, num_warps=8, num_stages=3, num_ctas=1, maxnreg=64)
    assert x.eq(2.5).all()

    @jit
    def kernel(x, num_warps: tl.constexpr):
        tl.store(x, num_warps)

    kernel[(1,)](x, num_warps=7)
    assert x[0] == 7


def test_compiled_code_launches() -> None:
    """torch.compile leaves a launch alone and compiles what is around it."""
    frames: list[int] = []

    def backend(module: torch.fx.GraphModule, inputs: Any) -> Any:
        frames.append(len(module.graph.nodes))
        return module.forward

    def around(x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        fill[(1,)](y, 5.0, 3)
        return y + 1

    assert torch.compile(around, backend=backend)(torch.ones(4)).tolist() == [6, 6, 6, 3]
    assert len(frames) == 2


def test_none_tuples_types_and_functions_are_arguments() -> None:
    """None and types decide at compile time; tuples are taken apart."""
    Pair = namedtuple("Pair", "low high")

    @jit
    def twice(v):
        return v * 2

    @jit
    def kernel(x, bias, pair, both, fn: tl.constexpr, dtype: tl.constexpr):
        v = pair.low + both[1]
        if bias is not None:
            v += tl.load(bias)
        tl.store(x, fn(v).to(dtype))

    x = torch.zeros(1)
    kernel[(1,)](x, None, Pair(1.5, 9), (1, 3), fn=twice, dtype=tl.int32)
    assert x.item() == 9
    kernel[(1,)](x, torch.tensor(10.0), Pair(1.5, 9), (1, 3), fn=twice, dtype=tl.float32)
    assert x.item() == 29


def test_launches_that_do_not_fit_are_refused_by_name() -> None:
    """Missing, unknown and odd arguments, tensors without numbers, grids that are none: nothing is computed."""
    x = torch.zeros(8)
    for launch, reason in (
        (lambda: fill[(1,)](x), "missing a required argument: 'value'"),
        (lambda: fill[(1,)](x, 1.0, 8, 4, 5), "too many positional arguments"),
        (lambda: fill[(1,)](x, 1.0, 8, BLOK=4), "unexpected keyword argument 'BLOK'"),
        (lambda: fill[(-1,)](x, 1.0, 8), "its grid is none"),
        (lambda: fill[(1, 1, 1, 1)](x, 1.0, 8), "its grid is none"),
        (lambda: fill[("a",)](x, 1.0, 8), "its grid is none"),
        (lambda: fill[(1,)](x, object(), 8), "value is no argument for a kernel"),
        (lambda: fill[(1,)](x, 1.0, 2**64), "n is no argument for a kernel"),
        (lambda: fill[(1,)](x.to(torch.complex64), 1.0, 8), "x is no argument for a kernel"),
        (lambda: fill[(1,)](x, torch.zeros(1, device="meta"), 8), "value holds no numbers"),
        (lambda: fill[(1,)](FakeTensorMode().from_tensor(x), 1.0, 8), "x holds no numbers"),
    ):
        with pytest.raises(LaunchRefused, match=reason) as raised:
            launch()
        assert "fill" in str(raised.value) and __file__ in str(raised.value)
    assert not x.any()


@pytest.fixture
def triton() -> Iterator[Any]:
    """The shim, whatever else is installed."""
    finder = Finder()
    finder.shim(changes_of("triton.shim")[0])
    finder.install()
    try:
        import triton

        yield triton
    finally:
        finder.remove()


def test_the_shim_launches(triton: Any) -> None:
    """Decorated, tuned and with heuristics: the first configuration that can run does, with its hook."""
    called = []
    configs = [triton.Config({"BLOCK": 3}), triton.Config({"BLOCK": 8}, pre_hook=lambda args: called.append(args))]

    @triton.autotune(configs=configs, key=["n"], reset_to_zero=["x"])
    @triton.heuristics({"DOUBLE": lambda args: args["n"] > 4})
    @triton.jit
    def kernel(x, n, BLOCK: triton.language.constexpr, DOUBLE: triton.language.constexpr):
        at = triton.language.arange(0, BLOCK)
        value = triton.language.load(x + at, at < n) + (2 if DOUBLE else 1)
        triton.language.store(x + at, value, at < n)

    x = torch.ones(6)
    kernel[lambda meta: (triton.cdiv(6, meta["BLOCK"]),)](x, 6)
    assert x.eq(2).all() and kernel.best_config is configs[1] and called[0]["BLOCK"] == 8
    kernel[(1,)](x, 6)
    assert x.eq(4).all() and len(called) == 2


def test_a_configuration_is_kept_by_numbers_and_types(triton: Any) -> None:
    """As Triton's keys: what the numbers are that the key names, of which type the tensors are, and nothing else."""

    @triton.autotune(configs=[triton.Config({"BLOCK": 4}), triton.Config({"BLOCK": 8})], key=["x", "n", "scale"])
    @triton.jit
    def kernel(x, n, scale, offset, BLOCK: triton.language.constexpr):
        at = triton.language.arange(0, BLOCK)
        triton.language.store(x + at, n * scale + offset, at < n)

    for x, n, scale, offset in ((torch.zeros(8), 3, 2.0, 1), (torch.ones(9), 3, 2.0, 5), (torch.ones(9), 3, 2, 7)):
        kernel[(1,)](x, n, scale, offset)
        assert x[0] == n * scale + offset
    assert list(kernel.cache) == [(3, 2.0, ("torch.float32",))]
    kernel[(1,)](torch.zeros(8), 4, 2.0, 1)
    kernel[(1,)](torch.zeros(8, dtype=torch.float16), 3, 2.0, 1)
    assert list(kernel.cache)[1:] == [(4, 2.0, ("torch.float32",)), (3, 2.0, ("torch.float16",))]


def test_a_configuration_that_has_a_shader_is_preferred(triton: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Metal is asked for: 4096 elements for each of 32 threads go into no shader, 8 for each of 128 threads do.

    Where nothing does, the first whose program can be made runs on torch operators.
    """

    def kernel_with(*configs: Any) -> Any:
        @triton.autotune(configs=configs, key=[])
        @triton.jit
        def kernel(x, BLOCK: triton.language.constexpr):
            at = triton.language.arange(0, BLOCK)
            triton.language.store(x + at, triton.language.sort(triton.language.load(x + at)))

        return kernel

    no_program, too_large = triton.Config({"BLOCK": 3}), triton.Config({"BLOCK": 1 << 17}, num_warps=1)
    fits, fits_too = triton.Config({"BLOCK": 1024}), triton.Config({"BLOCK": 512})
    x = torch.zeros(1 << 17)
    usual = kernel_with(no_program, too_large, fits)
    usual.warmup(x)
    assert usual.best_config is too_large
    pretend_shaders_compile(monkeypatch, lambda *_, **__: None)
    for configs, best in (((no_program, too_large, fits, fits_too), fits), ((no_program, too_large), too_large)):
        kernel = kernel_with(*configs)
        kernel.warmup(x)
        assert kernel.best_config is best


def test_descriptors_made_outside(triton: Any) -> None:
    """What lies outside is padding; the kernel sees the block's shape and type."""
    from triton.tools.tensor_descriptor import TensorDescriptor

    @triton.jit
    def kernel(source, target):
        block = source.load([1, 0])
        target.store([0, 0], (block + source.block_shape[1]).to(target.dtype))

    x, out = torch.arange(12.0).reshape(3, 4), torch.zeros(2, 4, dtype=torch.int32)
    kernel[(1,)](TensorDescriptor.from_tensor(x, [4, 4]), TensorDescriptor.from_tensor(out, [4, 4]))
    assert torch.equal(out, (x[1:] + 4).int())


def test_warmup_makes_a_program_and_runs_none(triton: Any) -> None:
    """Types stand for tensors."""

    @triton.jit
    def kernel(x, BLOCK: triton.language.constexpr):
        triton.language.store(x + triton.language.arange(0, BLOCK), 0.0)

    assert "store" in str(kernel.warmup(torch.float16, BLOCK=4, grid=(1,)))
    with pytest.raises(KernelNotSupported, match="no power of two"):
        kernel.warmup(torch.float16, BLOCK=5, grid=(1,))
    with pytest.raises(KernelNotSupported, match="outside a kernel"):
        kernel(torch.zeros(4), 4)


def test_grid_and_warmup_are_no_options_of_a_launch(triton: Any) -> None:
    """As in Triton: they are the launcher's own, by whatever name a kernel calls a parameter."""

    @triton.jit
    def kernel(x, grid):
        triton.language.store(x, grid)

    x = torch.zeros(1)
    kernel[(1,)](x, 3.0)
    assert x[0] == 3
    for options in ({"grid": 5.0}, {"warmup": True}):
        with pytest.raises(TypeError, match="multiple values for keyword argument"):
            kernel[(1,)](x, **options)
    assert x[0] == 3


ON_MPS = """
import torch
from patcher.engine.imports import Finder
from patcher.changes import changes_of

finder = Finder()
finder.shim(changes_of("triton.shim")[0])
finder.install()
import triton
import triton.language as tl
from patcher.errors import LaunchRefused


@triton.jit
def scores(x, y, out, counter, N: tl.constexpr):
    n = tl.arange(0, N)
    row = tl.program_id(0)
    at = n[:, None] * N + n[None, :]
    product = tl.dot(tl.load(x + at), tl.trans(tl.load(y + at))).to(tl.float32)
    best, place = tl.max(product, 1, return_indices=True)
    if row % 2 == 0:
        best = tl.sort(best) + tl.cumsum(place * 0, 0)
    tl.atomic_add(counter + n % 2, 1)
    tl.store(out + row * N + n, best + tl.rand(row, n) * 0)


for dtype in (torch.float32, torch.bfloat16, torch.float16):
    x, y = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(1)).to(dtype).to("mps")
    out, counter = torch.zeros(4, 16, device="mps"), torch.zeros(2, dtype=torch.int32, device="mps")
    scores[(4,)](x, y, out, counter, 16)
    best = (x.cpu().float() @ y.cpu().float().t()).amax(1)
    assert torch.allclose(out[1].cpu(), best, atol=1e-3), dtype
    assert torch.allclose(out[2].cpu(), best.sort()[0], atol=1e-3), dtype
    assert counter.tolist() == [32, 32]
try:
    scores[(4,)](x.cpu(), y, out, counter, 16)
except LaunchRefused as error:
    print("REFUSED", "x on cpu, y on mps:0" in str(error))
"""


def test_on_the_simulated_mac(tmp_path: Path) -> None:
    """Kernels run on mps with the operators and types that a Mac has; a tensor on the CPU among them is refused."""
    script = tmp_path / "script.py"
    script.write_text(ON_MPS)
    run = run_python("-m", "patcher", "run", "--simulate", "1", str(script))
    assert "REFUSED True" in run.stdout
