"""``torch.library.triton_op`` and ``wrap_triton`` with the kernels of the shim, on the simulated Mac."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.process import run_python

pytestmark = pytest.mark.slow

SCRIPT = """
from patcher import patch_for_mac
handle = patch_for_mac()
import json, warnings
import torch, triton, triton.language as tl
from torch.fx.experimental.proxy_tensor import make_fx
from torch.library import opcheck, triton_op, wrap_triton

warnings.simplefilter("ignore")


@triton.jit
def multiply_add(a, b, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(a + at, at < n) + 2 * tl.load(b + at, at < n), at < n)


@triton.autotune(configs=[triton.Config({"BLOCK": 3}), triton.Config({"BLOCK": 16}, num_warps=2)], key=["n"])
@triton.jit
def add_and_count(a, b, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(b + at, at < n)
    tl.store(out + at, tl.load(a + at, at < n) + value, at < n)
    tl.store(b + at, value + 1, at < n)


def launch(kernel, a, b, *block, **options):
    out = torch.empty_like(a)
    n = out.numel()
    kernel[lambda meta: (triton.cdiv(n, meta["BLOCK"]),)](a, b, out, n, *block, **options)
    return out


@triton_op("checks::multiply_add", mutates_args={})
def multiplied(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return launch(wrap_triton(multiply_add), a, b, BLOCK=16, num_warps=2)


multiplied.register_autograd(lambda ctx, g: (g, 2 * g), setup_context=lambda ctx, inputs, output: None)


@triton_op("checks::add_and_count", mutates_args=["b"])
def counted(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return launch(wrap_triton(add_and_count), a, b)


def around(a, b):
    return multiplied(a * 2, b).sin()


def around_counted(a, b):
    return counted(a * 2, b) + b


def plain(a, b):
    with torch.cuda.device(a.device):
        return launch(multiply_add, a * 2, b, BLOCK=16).sin()


def numbers(*sizes):
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(2, size, generator=generator).to("mps") for size in sizes]


def difference(function, expected, dynamic):
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, dynamic=dynamic)
    found = []
    for x in numbers(37, 37, 64, 90):
        a, b = x[0].clone().requires_grad_(function is around), x[1].clone().requires_grad_(function is around)
        c, d = x[0].clone().requires_grad_(function is around), x[1].clone().requires_grad_(function is around)
        y, z = compiled(a, b), expected(c, d)
        pairs = [(y, z), (b, d)]
        if function is around:
            y.sum().backward(), z.sum().backward()
            pairs += [(a.grad, c.grad), (b.grad, d.grad)]
        found += [(one - other).abs().max().item() for one, other in pairs]
    return max(found)


def add_and_count_again(a, b):
    out = 2 * a + b
    b += 1
    return out + b


a, b = numbers(37)[0]
report = {
    "eager": [(multiplied(a, b) - (a + 2 * b)).abs().max().item()],
    "compiled": [difference(around, lambda a, b: (2 * a + 2 * b).sin(), dynamic) for dynamic in (None, True)],
    "tuned": [difference(around_counted, add_and_count_again, dynamic) for dynamic in (None, True)],
    "plain": [difference(plain, lambda a, b: (2 * a + 2 * b).sin(), dynamic) for dynamic in (None, True)],
}
checks = {
    "mps": [opcheck(multiplied, (a, b)), opcheck(counted, (a.clone(), b.clone()))],
    "cpu": [opcheck(multiplied, (a.cpu().requires_grad_(), b.cpu().requires_grad_()))],
}
graph = make_fx(lambda a, b: launch(wrap_triton(multiply_add), a, b, BLOCK=16))(a, b)
report["traced"] = [(graph(a, b) - (a + 2 * b)).abs().max().item()]


class Module(torch.nn.Module):
    def forward(self, a, b):
        return multiplied(a, b) + plain(a, b)


for strict in (False, True):
    exported = torch.export.export(Module(), (a, b), strict=strict)
    found = [exported.module()(a, b), exported.run_decompositions({}).module()(a, b)]
    report["traced"] += [(y - Module()(a, b)).abs().max().item() for y in found]

wrapper = torch._higher_order_ops.triton_kernel_wrap.TraceableTritonKernelWrapper
ours = [getattr(wrapper, name).__module__ for name in ("__call__", "run")]


class Foreign(triton.runtime.jit.KernelInterface):
    def __init__(self):
        self.fn = lambda: None


reached = []
hopifier = torch._higher_order_ops.triton_kernel_wrap.tracing_triton_hopifier_singleton
hopifier.call_triton_kernel = lambda *args: reached.append("call")
hopifier.call_run = lambda *args: reached.append("run")
foreign = wrapper(Foreign(), None, (1,))
foreign(), foreign.run(grid=(1,))
handle.undo()
report |= {
    "graph": [str(node.target) for node in graph.graph.nodes if node.op == "call_function"],
    "checks": checks,
    "foreign": reached,
    "ours": ours,
    "theirs": [getattr(wrapper, name).__module__ for name in ("__call__", "run")],
}
print("REPORT", json.dumps(report, default=str))
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("triton_op")
    script: Path = folder / "script.py"
    script.write_text(SCRIPT)
    run = run_python(str(script), UNSLOTH_SIMULATE_MAC="1", TORCHINDUCTOR_CACHE_DIR=str(folder / "inductor"))
    found: dict[str, Any] = json.loads(run.stdout.partition("REPORT ")[2])
    return found


def test_numbers(report: dict[str, Any]) -> None:
    """Eager, compiled with ``fullgraph=True`` (static and dynamic sizes, forward and backward, a tuned kernel that
    writes into its input), the same launch without an operator around it and within
    ``torch.cuda.device``, as libraries launch, ``make_fx`` and ``torch.export``.

    Each number is a few operations on numbers below 7; each operation rounds by half of 2^-23 of it at most.
    """
    assert report["eager"] == [0.0]
    for way in ("compiled", "tuned", "plain", "traced"):
        assert max(report[way]) <= 4 * 7 * 2**-24, way


def test_the_graph_holds_one_operator(report: dict[str, Any]) -> None:
    """And nothing of Triton's."""
    assert report["graph"] == ["aten.empty_like.default", "patcher.triton_kernel.default"]


def test_opcheck(report: dict[str, Any]) -> None:
    """Schema, fake tensors, autograd and AOTAutograd; torch checks autograd's registration on the CPU, not on mps."""
    every = {"test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic"}
    for found in (*report["checks"]["mps"], *report["checks"]["cpu"]):
        assert set(found) == every and set(found.values()) == {"SUCCESS"}


def test_kernels_that_are_not_the_shims_are_torchs(report: dict[str, Any]) -> None:
    """And so is every kernel after ``.undo()``."""
    assert report["foreign"] == ["call", "run"]
    assert set(report["ours"]) == {"patcher.replacements.torch.triton_kernel_wrap"}
    assert set(report["theirs"]) == {"torch._higher_order_ops.triton_kernel_wrap"}


KEPT = """
from patcher import patch_for_mac
patch_for_mac()
import torch, triton, triton.language as tl
from torch.library import triton_op, wrap_triton


@triton_op("checks::late", mutates_args={})
def late(a: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(a)
    wrap_triton(multiply)[(4,)](a, out, a.numel(), 16)
    return out


@triton.jit
def multiply(a, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, FACTOR * tl.load(a + at, at < n), at < n)


found = torch.compile(lambda a: late(a) + 1, fullgraph=True)(torch.ones(50, device="mps"))
print("FOUND", *set(found.tolist()), torch._dynamo.utils.counters["aot_autograd"]["autograd_cache_hit"])
"""


def test_a_kernel_that_has_changed_since_torch_kept_the_graph(tmp_path: Path) -> None:
    """torch takes the graph of a ``triton_op`` whose kernel is defined after it for the same; today's kernel runs."""
    script, found = tmp_path / "script.py", []
    for factor in (2, 3):
        script.write_text(KEPT.replace("FACTOR", str(factor)))
        run = run_python(str(script), UNSLOTH_SIMULATE_MAC="1", TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "inductor"))
        found.append(run.stdout.partition("FOUND ")[2].strip())
    assert found == ["3.0 0", "4.0 1"]
