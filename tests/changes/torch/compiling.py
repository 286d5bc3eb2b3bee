"""Torch's replaced functions in compiled, exported, scripted and traced code."""

from __future__ import annotations

import copy
import pickle
import types
from collections.abc import Callable
from typing import Any

import torch
from torch.jit import _builtins

from tests.changes.torch.examples import EXAMPLES, NOT_COMPILED, NOT_TORCHS, OF_CUDA, UNINITIALISED
from tests.changes.torch.own import OWN, of_tensor, replaced

COPIES = types.ModuleType("copies")
"""A library that has copied names of torch's, and registers itself as an operator."""


def _moved(x: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(x, dtype=torch.float64).copy_(x.to(torch.float64) + torch.tensor(1.0, dtype=torch.float64))


def compiled_and_exported() -> None:
    x = torch.arange(3.0)
    assert torch.equal(torch.compile(_moved, backend="eager", fullgraph=True)(x), _moved(x))
    assert torch.equal(torch.compile(_moved, backend="aot_eager", fullgraph=True)(x), _moved(x))
    unbound = torch.compile(lambda v: torch.Tensor.to(v, torch.float64), backend="eager", fullgraph=True)
    assert torch.equal(unbound(x), x.double())

    class Module(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return _moved(x)

    for strict in (False, True):
        assert torch.equal(torch.export.export(Module(), (x,), strict=strict).module()(x), _moved(x))
    assert torch.equal(torch.fx.symbolic_trace(Module())(x), _moved(x))


def compiled_calls() -> None:
    """Each function as a script calls it, within compiled code: what torch's own gives there, without a graph break."""
    for target, function in replaced().items():
        if target in NOT_TORCHS:
            continue
        args, kwargs = EXAMPLES[target]()
        uninitialised = target in UNINITIALISED
        found = outcome_of(compiled(function), args, kwargs, uninitialised)
        assert (target in NOT_COMPILED) == isinstance(found, type), (target, found)
        other = function if target in OF_CUDA else compiled(OWN[target])
        assert found == outcome_of(other, args, kwargs, uninitialised), (target, found)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    def called(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    torch._dynamo.reset()
    compiled: Callable[..., Any] = torch.compile(called, backend="aot_eager", fullgraph=True)
    return compiled


def outcome_of(function: Callable[..., Any], args: Any, kwargs: Any, uninitialised: bool = False) -> Any:
    """What a call gives under one seed, or the class of what it raises."""
    torch.manual_seed(0)
    try:
        result = function(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - which one is what is asked
        return type(error)
    if not isinstance(result, torch.Tensor):
        return result
    numbers = None if uninitialised else result.to_dense().tolist()
    return result.dtype, result.device, result.layout, result.shape, numbers


def compiled_for_cuda() -> None:
    x = torch.eye(3).to("mps")

    def made(x: torch.Tensor) -> torch.Tensor:
        moved = torch.tensor([1.0, 2.0, 3.0]).to("cuda") + x.cpu().cuda()
        return moved + torch.ones(3, device="cuda:0") + torch.tensor(1.0, device="cuda")

    def drawn(x: torch.Tensor) -> torch.Tensor:
        return x @ torch.eye(3, device="cuda") + 0 * torch.rand(3, device="cuda")

    def selected(x: torch.Tensor) -> torch.Tensor:
        with torch.cuda.device(0):
            return x.cuda() + 1

    for backend in ("eager", "aot_eager"):
        assert torch.equal(torch.compile(made, backend=backend, fullgraph=True)(x), made(x))
        assert torch.equal(torch.compile(selected, backend=backend, fullgraph=True)(x), selected(x))
    from torch._inductor import config

    with config.patch(force_disable_caches=True):
        assert torch.equal(torch.compile(drawn, fullgraph=True)(x), x)


def with_autocast(x: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return torch.mm(x, x)


def with_autocast_of_cuda(x: torch.Tensor) -> torch.Tensor:
    with torch.cuda.amp.autocast():
        return torch.mm(x, x)


def traced_by_fx() -> None:
    """A graph names the function as torch's own graph does, and goes through copies and pickles."""
    left_out = NOT_TORCHS | OF_CUDA | UNINITIALISED | NOT_COMPILED
    for target, function in replaced().items():
        args, kwargs = EXAMPLES[target]()
        if target in left_out or of_tensor(target) or not any(isinstance(each, torch.Tensor) for each in args[:1]):
            continue
        found, right = (torch.fx.symbolic_trace(_Calls(each, args[1:], kwargs)) for each in (function, OWN[target]))
        assert found.code == right.code, target
        (call,) = (node.target for node in found.graph.nodes if node.op.startswith("call"))
        assert call is function, target
        assert outcome_of(copy.deepcopy(found), args[:1], {}) == outcome_of(function, args, kwargs), target
        assert outcome_of(_pickled(found), args[:1], {}) == outcome_of(_pickled(right), args[:1], {}), target


def _pickled(graph: torch.fx.GraphModule) -> Callable[..., Any]:
    return lambda *args: pickle.loads(pickle.dumps(graph))(*args)


class _Calls(torch.nn.Module):
    def __init__(self, function: Callable[..., Any], rest: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__()
        self.function, self.rest, self.kwargs = function, rest, kwargs

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x, *self.rest, **self.kwargs)


def drawn(n: int, generator: torch.Generator | None = None) -> torch.Tensor:
    return torch.rand(n, generator=generator)


def generators_and_streams() -> None:
    """In code for TorchScript and torch.compile."""
    right = drawn(3, torch.Generator().manual_seed(1))
    assert torch.equal(torch.jit.script(drawn)(3, torch.Generator().manual_seed(1)), right)
    assert isinstance(torch.jit.CompilationUnit("def f():\n    return torch.Generator()\n").f(), torch.Generator)
    torch._dynamo.reset()
    assert torch.equal(torch.compile(drawn, backend="eager")(3, torch.Generator().manual_seed(1)), right)

    def asks(x: torch.Tensor, given: Any) -> torch.Tensor:
        stream, event = torch.Stream(device="mps"), torch.Event(device="mps")
        event.record(stream)
        return x + 1 if isinstance(given, torch.Generator) or not isinstance(stream, torch.Stream) else x

    fullgraph = torch.compile(asks, backend="eager", fullgraph=True)
    assert fullgraph(torch.zeros(1), None).item() == 0


def scripted_and_traced() -> None:
    source = "def f(x, n: int):\n    return x.to(torch.float64).copy_(torch.tensor([n])) + torch.as_tensor([n])\n"
    assert torch.jit.CompilationUnit(source).f(torch.zeros(1), 2).tolist() == [4]
    traced = torch.jit.trace(_moved, (torch.zeros(3),))
    assert torch.equal(traced(torch.ones(3)), _moved(torch.ones(3)))
    assert torch.jit.script(with_autocast)(torch.eye(2)).dtype is torch.bfloat16
    assert torch.jit.script(with_autocast_of_cuda)(torch.eye(2)).tolist() == [[1, 0], [0, 1]]
    for target, function in replaced().items():
        assert _builtins._find_builtin(function) == _builtins._find_builtin(OWN[target]), target
    assert _builtins._find_builtin(torch.tensor) == "aten::tensor"
    _builtins._register_builtin(COPIES, "aten::of_a_library")
