"""Programs as Metal shaders on the simulated mps device.

``PATCHER_METAL_CASES=1`` runs every case of ``programs/`` and not every fourth one: ``make shaders``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from patcher.environment import triton_kernels
from patcher.errors import InvalidSwitch
from patcher.tiles import backends, on_metal
from patcher.tiles.on_metal import NotOnMetal, layouts
from patcher.tiles.on_metal.emitter import Shader, shader_of
from patcher.tiles.on_metal.layouts import Place
from tests.oracle.client import TRITON
from tests.process import ROOT, run_module
from tests.tiles import generator
from tests.tiles.jit import Jit, jit, tl
from tests.tiles.test_language import Answers, difference

pytestmark = pytest.mark.slow

EVERY = os.environ.get("PATCHER_METAL_CASES", "4")
"""Every how many-th case runs."""

SELDOM = str(4 * int(EVERY))
"""And runs checked."""

ADMITTED = "1" if EVERY == "1" else SELDOM
"""And is compared as first launches are."""

RANDOM = 16
"""Kernels written at random, in the types that Metal has."""

RACING = "divergence.loads_outside_that_are_not_reached"
"""Two programs of its grid write one element, and their order counts."""

LEFT_OUT = {
    "metal-checked": (RACING,),
    "metal-admitted": (RACING,),
    "metal-backwards": (RACING, "addresses.stores_that_miss"),  # two lanes write one element, in the schedule's order
}
"""By mode, cases that are not compared."""

KNOWN = (
    "fp64 is no type of Metal's",
    "fp8",
    "a cast from int64 to *",
    "a pointer is used as a number",
    "pointers into one of several tensors",
    "the function bessel_",
    "atomic operations on ",
    "its programs wait for one another",
    "the operation assert",
    "the operation elementwise",
    "the operation print",
)
"""Why cases run with torch."""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answers]:
    """What cases gave in Triton's interpreter, and as shaders: as they are, with the other schedule, and checked."""
    folder = tmp_path_factory.mktemp("shaders")
    generated = folder / "generated.py"
    generated.write_text(generator.programs(RANDOM, seed=11).replace("float64", "float32"))
    path = os.pathsep.join((str(ROOT), str(TRITON)))

    def run(mode: str) -> Answers:
        environment = {"PYTHONPATH": path, "TRITON_INTERPRET": "1"} if mode == "interpreted" else {}
        step = {"metal-checked": SELDOM, "metal-admitted": ADMITTED}.get(mode, EVERY)
        run_module("tests.tiles.worker", mode, folder / mode, generated, f"::{step}", **environment)
        found: Answers = torch.load(folder / mode)
        return found

    modes = ("interpreted", "metal", "metal-checked", "metal-backwards", "metal-admitted")
    with ThreadPoolExecutor(2) as threads:
        return dict(zip(modes, threads.map(run, modes), strict=True))


@pytest.mark.parametrize("mode", ["metal", "metal-checked", "metal-backwards", "metal-admitted"])
def test_cases(answers: dict[str, Answers], mode: str) -> None:
    """Each gives what it gives in Triton's interpreter, without races and accesses outside, in either schedule."""
    both = {"interpreted": answers["interpreted"], "shim": answers[mode]}
    names = [name for name in answers[mode] if not name.startswith(LEFT_OUT.get(mode, ()))]
    wrong = {name: told for name in names if (told := difference(both, name))}
    assert not wrong, "\n".join(f"{name}: {told}" for name, told in wrong.items())


def test_all_are_admitted(answers: dict[str, Answers]) -> None:
    """What is right is not taken for wrong: each launch is compared as first launches are."""
    told = {name: case["refused"] for name, case in answers["metal-admitted"].items() if case["refused"]}
    assert not {name for name, reasons in told.items() if any(why.startswith("wrong: ") for why in reasons)}, told
    assert sum(bool(case["ran"]) for case in answers["metal-admitted"].values()) > len(told)


def test_threads_wait(tmp_path: Path) -> None:
    """Cases of `programs.barriers`, all of them, with races checked; each has its answer from torch."""
    run_module("tests.tiles.worker", "metal-checked", tmp_path / "out", "barriers")
    found: Answers = torch.load(tmp_path / "out")
    wrong = [f"{name}: {case['error']}" for name, case in found.items() if case["error"]]
    assert not wrong, "\n".join(wrong)
    assert all(case["ran"] for case in found.values())


def test_what_runs_with_torch(answers: dict[str, Answers]) -> None:
    """Only what is known not to run as a shader."""
    found = answers["metal"]
    reasons = {reason for case in found.values() for reason in case["refused"]}
    assert [reason for reason in reasons if not reason.startswith(KNOWN)] == []
    assert sum(bool(case["ran"]) for case in found.values()) > len(found) // 2


def test_kernels_of_unsloth(tmp_path: Path) -> None:
    """All of them run as shaders and give what they give with torch."""
    variables = {"UNSLOTH_ALLOW_CPU": "1", "UNSLOTH_FORCE_GPU_PATH": "1"}
    run_module("tests.tiles.upstream", tmp_path / "out", **variables)
    for name, (right, found, ran, refused) in torch.load(tmp_path / "out", weights_only=False).items():
        assert ran, name
        assert not refused, f"{name}: {refused}"
        narrow = "bfloat16" in name
        for a, b in zip(_tensors(found), _tensors(right), strict=True):
            torch.testing.assert_close(
                a, b, rtol=1e-2 if narrow else 1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
            )


def _tensors(found: Any) -> Iterator[torch.Tensor]:
    if isinstance(found, torch.Tensor):
        yield found
    elif isinstance(found, dict):
        yield from _tensors(list(found.values()))
    elif isinstance(found, (list, tuple)):
        for part in found:
            yield from _tensors(part)


# -- limits ------------------------------------------------------------------------------------------------------------


@jit
def doubled(x_ptr: Any, n: Any, N: tl.constexpr) -> None:  # type: ignore[name-defined]
    at = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(x_ptr + at, tl.load(x_ptr + at, mask=at < n) * 2, mask=at < n)


@jit
def gathered(x_ptr: Any, N: tl.constexpr) -> None:  # type: ignore[name-defined]
    at = tl.arange(0, N)
    tl.store(x_ptr + at, tl.gather(tl.load(x_ptr + at), N - 1 - at, 0))


@jit
def counted(x_ptr: Any) -> None:
    tl.atomic_add(x_ptr, 1)


@jit
def locked(x_ptr: Any) -> None:
    while tl.atomic_cas(x_ptr, 0, 1) == 1:
        pass
    tl.atomic_xchg(x_ptr, 0)


@jit
def multiplied(x_ptr: Any, N: tl.constexpr) -> None:  # type: ignore[name-defined]
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at[:, None] * N + at[None, :])
    tl.store(x_ptr + at[:, None] * N + at[None, :], tl.dot(x, x))


def shader(kernel: Jit, *args: Any, num_warps: int = 4, overlapping: bool = False) -> Shader:
    """The shader of a kernel for such arguments."""
    return shader_of(kernel.compile(*args), num_warps, overlapping)


@pytest.mark.parametrize(
    ("kernel", "args", "why"),
    [
        (doubled, (torch.float64, 100, 64), "fp64 is no type of Metal's"),
        (doubled, (torch.float32, 100, 1 << 20), "1024 elements of a block for each thread, and 256 are the most"),
        (gathered, (torch.float32, 1 << 14), "65536 bytes of threadgroup memory, and there are 32768"),
        (counted, (torch.int64,), "atomic operations on int64"),
        (locked, (torch.int32,), "its programs wait for one another"),
    ],
)
def test_limits(kernel: Jit, args: tuple[Any, ...], why: str) -> None:
    """What does not go into Metal's limits is refused with the number."""
    with pytest.raises(NotOnMetal, match=f"^{why}$"):
        shader(kernel, *args)


def test_most_buffers() -> None:
    """Pointers need one each; numbers share two."""
    names = [f"p{number}" for number in range(32)]
    text = f"def many({', '.join(names)}):\n    tl.store(p0, 1.0)\n"
    program = _program_of(text, [torch.float32] * 32)
    with pytest.raises(NotOnMetal, match=r"^32 buffers, and 31 are the most$"):
        shader_of(program, 4, False)


def _program_of(text: str, args: list[Any]) -> Any:
    import linecache

    name = "<many>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    names: dict[str, Any] = {"tl": tl, "__name__": __name__}
    exec(compile(text, name, "exec"), names)  # noqa: S102 - a function with many parameters
    return jit(names["many"]).compile(*args)


def test_threads() -> None:
    """As many as the largest block has elements, at most those that are asked for; more where blocks are large."""
    assert shader(doubled, torch.float32, 100, 16).threads == 32
    assert shader(doubled, torch.float32, 100, 256).threads == 128
    assert shader(doubled, torch.float32, 100, 256, num_warps=8).threads == 256
    assert shader(doubled, torch.float32, 100, 1 << 15).threads == 512
    assert "max_total_threads_per_threadgroup(512)" in shader(doubled, torch.float32, 100, 1 << 15).source


@pytest.mark.parametrize(("registers", "threads"), [(1024, 128), (100, 64), (32, 32), (31, 0)])
def test_threads_have_registers(monkeypatch: pytest.MonkeyPatch, registers: int, threads: int) -> None:
    """Where they have not, a shader with less of them is tried before the kernel is refused."""
    function = SimpleNamespace(max_threads_per_threadgroup=registers)
    library = SimpleNamespace(tile_doubled=function)
    monkeypatch.setattr(torch.mps, "compile_shader", lambda source: library)
    args: list[Any] = [torch.zeros(256), 256]
    program = Jit(doubled.fn).compile(torch.float32, 256, 256)
    if threads:
        assert on_metal.launcher_of(program, (1, 1, 1), args, 4).shader.threads == threads
        return
    with pytest.raises(NotOnMetal, match=r"^128 threads, and 31 have registers enough$"):
        on_metal.launcher_of(program, (1, 1, 1), args, 4)


def test_source_is_the_same_every_time() -> None:
    """What has been compiled once is found again, wherever the kernel's file lies."""
    first, second = (shader(doubled, torch.float32, 100, 256) for _ in range(2))
    assert first.source == second.source
    assert __file__ not in first.source


def test_what_is_only_read_is_const() -> None:
    """Unless it may be one tensor with what is written."""
    assert "const device float* p0" not in shader(doubled, torch.float32, 100, 256).source
    assert "const device float* p0" in shader(copied, torch.float32, torch.float32, 64).source
    assert "const device" not in shader(copied, torch.float32, torch.float32, 64, overlapping=True).source
    assert "barrier" not in shader(copied, torch.float32, torch.float32, 64).source


@jit
def halved(x_ptr: Any, step: Any, N: tl.constexpr) -> None:  # type: ignore[name-defined]
    at = tl.arange(0, N)
    tl.store(x_ptr + at * step, tl.load(x_ptr + at * step) / 2)


def test_barriers_stand_where_threads_may_meet() -> None:
    """Not where each thread finds its own elements again; strides are not known, and 0 is one."""
    assert "barrier" not in shader(doubled, torch.float32, 100, 256).source
    assert "barrier" in shader(halved, torch.float32, 3, 256).source
    assert "barrier" in shader(doubled, torch.float32, 100, 16).source  # two threads for each element


@jit
def copied(x_ptr: Any, y_ptr: Any, N: tl.constexpr) -> None:  # type: ignore[name-defined]
    at = tl.arange(0, N)
    tl.store(y_ptr + at, tl.load(x_ptr + at))


@pytest.mark.parametrize(("size", "by_matrices"), [(64, True), (8, True), (4, False)])
def test_products_use_simdgroup_matrices(size: int, by_matrices: bool) -> None:
    """Where blocks are as large as one."""
    source = shader(multiplied, torch.float16, size).source
    assert ("simdgroup_multiply_accumulate" in source) is by_matrices


# -- layouts -----------------------------------------------------------------------------------------------------------


def test_layouts() -> None:
    """A block of 4 rows and 8 columns over 16 threads."""
    whole = layouts.canonical(5, 4)
    assert whole == (Place("t", 0), Place("t", 1), Place("t", 2), Place("t", 3), Place("r", 0))
    assert layouts.registers(whole) == 2
    assert layouts.index_text(whole) == "((t & 15u) | ((r << 4) & 16u))"
    rows = layouts.moved((Place("t", 3), Place("r", 0)), layouts.broadcast_bits((4, 1), (4, 8)), 5)
    assert rows == (None, None, None, Place("t", 3), Place("r", 0))
    assert layouts.fits(rows, whole)
    assert layouts.filled(rows, 4) == whole
    assert layouts.spare_mask(rows, 4) == 0b0111
    assert layouts.permuted_bits((4, 8), (1, 0)) == (2, 3, 4, 0, 1)
    assert not layouts.fits(layouts.moved(whole, (2, 3, 4, 0, 1), 5), whole)


# -- which back end ----------------------------------------------------------------------------------------------------


def test_other_devices_have_torch() -> None:
    """And the account says so."""
    x = torch.arange(10.0)
    backends.launches.clear()
    doubled[(1,)](x, 10, 16)
    assert torch.equal(x, torch.arange(10.0) * 2)
    ((launched, count),) = backends.launches.items()
    assert (launched.back_end, launched.why, count) == ("torch", "the tensors are on cpu", 1)
    assert launched.kernel.endswith("test_on_metal.doubled")


def test_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    """``PATCHER_TRITON``: metal, where nothing is known against it, or torch."""
    mps = torch.device("mps")
    monkeypatch.setattr("patcher.tiles.admission.why_not", lambda: "")
    monkeypatch.delenv("PATCHER_TRITON", raising=False)
    assert backends.why_not(mps) == ""
    monkeypatch.setenv("PATCHER_TRITON", "metal")
    assert backends.why_not(mps) == ""
    monkeypatch.setattr("patcher.tiles.admission.why_not", lambda: "Metal is wrong here")
    assert backends.why_not(mps) == "Metal is wrong here"
    monkeypatch.setenv("PATCHER_TRITON", "torch")
    assert backends.why_not(mps) == "PATCHER_TRITON is torch"
    monkeypatch.setenv("PATCHER_TRITON", "cuda")
    with pytest.raises(InvalidSwitch, match="neither metal nor torch"):
        triton_kernels()


def test_on_the_simulated_mac() -> None:
    """Programs run as shaders; what cannot, and with the switch everything, runs with torch."""
    text = run_module("tests.tiles.simulated").stdout.split("\n")
    assert text[0] == "tests.tiles.test_on_metal.doubled metal  2"
    assert text[1] == "tests.tiles.test_on_metal.doubled torch PATCHER_TRITON is torch 1"
    assert text[2] == "tests.tiles.test_on_metal.locked torch its programs wait for one another 1"
