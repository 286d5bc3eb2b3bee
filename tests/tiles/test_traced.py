"""Launches within what torch traces: one operator, the numbers of a launch that nobody traces, on any backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from patcher.changes import changes_of
from patcher.engine.imports import Finder
from patcher.errors import KernelNotSupported, LaunchRefused

pytestmark = pytest.mark.slow

Made = Callable[..., Any]


@pytest.fixture(scope="module")
def kernels() -> Iterator[Any]:
    """The kernels of this file, made with the shim, whatever else is installed."""
    finder = Finder()
    finder.shim(changes_of("triton.shim")[0])
    finder.install()
    try:
        from tests.tiles import traced_kernels

        yield traced_kernels
    finally:
        finder.remove()


class Compiled:
    """``torch.compile(function, fullgraph=True)`` with AOTAutograd, and the operators that it saw."""

    def __init__(self, function: Made, **options: Any) -> None:
        torch._dynamo.reset()
        self.graphs: list[list[str]] = []
        self.function = torch.compile(function, backend=self.backend, **{"fullgraph": True, **options})

    def backend(self, module: torch.fx.GraphModule, inputs: Any) -> Any:
        from torch._dynamo.backends.registry import lookup_backend

        self.graphs.append([str(node.target) for node in module.graph.nodes if node.op == "call_function"])
        return lookup_backend("aot_eager")(module, inputs)

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("out_of_place", (9,)),
        ("in_place", (9,)),
        ("rows_of_an_input", (2, 9)),
        ("rows_of_a_result", (2, 9)),
        ("transposed", (5, 9)),
        ("counted", (30,)),
        ("tuned", (9,)),
        ("by_function", (9,)),
    ],
)
def test_the_numbers_are_those_of_a_launch(kernels: Any, name: str, shape: tuple[int, ...], dynamic: Any) -> None:
    """Bit for bit, results and what is written into inputs, for three sizes, with at most two graphs."""
    function = getattr(kernels, name)
    compiled = Compiled(function, dynamic=dynamic)
    for more in (0, 0, 1, 2):
        x = torch.rand(*shape[:-1], shape[-1] + more, generator=torch.Generator().manual_seed(more))
        seen = x.clone()
        expected, found = function(x), compiled(seen)
        assert torch.equal(found, expected) and torch.equal(seen, x)
    assert len(compiled.graphs) <= 2
    assert all("patcher.triton_kernel" in names for names in compiled.graphs)


@pytest.mark.parametrize("dynamic", [None, True])
def test_gradients(kernels: Any, dynamic: Any) -> None:
    """Through an autograd.Function that launches forward and backward: a kernel with configurations, of which one is
    for no size and the next has a hook, with heuristics, a function and a type as arguments."""
    compiled = Compiled(kernels.loss, dynamic=dynamic)
    for size in (9, 16, 23):
        x = torch.rand(2, size, generator=torch.Generator().manual_seed(size)).requires_grad_()
        gradients = []
        for function in (kernels.loss, compiled):
            function(x[0], x[1]).backward()
            gradients.append(x.grad)
            x.grad = None
        assert torch.equal(*gradients)
        assert torch.allclose(gradients[0], torch.tensor([[4.0], [0.3]]).expand(2, size))  # of sum(2 * 2a + 0.3 b)


def test_autograd_does_not_see_a_launch(kernels: Any) -> None:
    """Compiled or not: what was written has the gradient that its tensor had before; a parameter can be written."""
    x = torch.rand(9, requires_grad=True)
    gradients = []
    for function in (kernels.over_a_result, Compiled(kernels.over_a_result)):
        function(x).backward()
        gradients.append(x.grad)
        x.grad = None
    assert torch.equal(*gradients) and gradients[0].any()
    parameters = [torch.nn.Parameter(torch.arange(9.0)) for _ in range(2)]
    kernels.step(parameters[0])
    Compiled(kernels.step)(parameters[1])
    assert torch.equal(*parameters) and parameters[0][0] != 0


def test_what_cannot_be_traced_ends_the_graph(kernels: Any) -> None:
    """A descriptor: right numbers, and with fullgraph=True an error that says what to do."""
    x = torch.rand(3, 4)
    compiled = Compiled(kernels.with_descriptors, fullgraph=False)
    assert torch.equal(compiled(x), kernels.with_descriptors(x)) and len(compiled.graphs) >= 2
    with pytest.raises(torch._dynamo.exc.Unsupported, match=r"without torch\.compile it says why"):
        Compiled(kernels.with_descriptors)(x)


def test_what_cannot_run_is_named(kernels: Any) -> None:
    """As without torch.compile."""
    with pytest.raises(KernelNotSupported, match=r"(?s)unknown cannot run: .*traced_kernels\.py:\d+"):
        Compiled(lambda x: kernels.unknown[(1,)](x * 2), fullgraph=False)(torch.ones(1))


def test_another_kernel_is_another_graph(kernels: Any) -> None:
    """What a name stands for is looked at again, also where both kernels have one source."""
    chosen = kernels.adding(1.0)
    compiled = Compiled(lambda x: kernels.launched(chosen, x))
    assert compiled(torch.zeros(3)).tolist() == [1, 1, 1]
    chosen = kernels.adding(2.0)
    assert compiled(torch.zeros(3)).tolist() == [2, 2, 2]


def test_strides_that_a_compiler_has_changed(kernels: Any) -> None:
    """The kernel sees those that were traced; what it writes lands in the tensors that are there."""
    graph = Compiled(kernels.transposed)
    x = torch.rand(3, 4)
    expected = graph(x)
    name = next(name for name, plan in kernels.plans.items() if plan.kernel.fn.__name__ == "add_reversed")
    source, target = (x + 1).t()[0], torch.zeros(8)[::2][:3]  # of strides 1 and 2, where 3 and 1 are spoken of
    torch.ops.patcher.triton_kernel(name, [1], [target], [source], [1, 3], [3, 3], [])
    plain = torch.zeros(3)
    kernels.add_reversed[(1,)](torch.empty_strided((3,), (3,)).copy_(source), plain, 3, 3, BLOCK=16)
    assert torch.equal(target, plain) and expected.shape == (4, 3)


def test_a_launch_that_another_process_has_traced(kernels: Any) -> None:
    """A name is of content: the same for the same kernel, another for another program or other constants. A kernel that
    has changed since takes the place of its former self; one that this process has not traced is refused."""
    x = torch.zeros(3)
    for kernel in (kernels.adding(1.0), kernels.adding(1.0), kernels.adding(2.0)):
        Compiled(lambda x, kernel=kernel: kernels.launched(kernel, x))(x)
    found = {plan.constants["VALUE"]: name for name, plan in kernels.plans.items() if "VALUE" in plan.constants}
    assert set(found) == {1.0, 2.0} and found[1.0] != found[2.0]
    called = found[2.0].rpartition(".")[0]
    torch.ops.patcher.triton_kernel(f"{called}.another", [3], [x], [], [1], [], [])
    assert x.tolist() == [2, 2, 2]
    for name in ("elsewhere#7.1", called.replace("#", "#0")):
        with pytest.raises(LaunchRefused, match=f"{name} is not known"):
            torch.ops.patcher.triton_kernel(name, [3], [x], [], [1], [], [])
