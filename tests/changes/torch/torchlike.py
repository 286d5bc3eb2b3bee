"""Torch's replaced functions used in every way that torch's own can be: `python -m tests.changes.torch.torchlike F`.

Writes to the file F, for each name of `KINDS`, the exception that it raised, or "" where it went through.
"""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import sys
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch.overrides import TorchFunctionMode

from patcher import patch_for_mac

METHODS, FUNCTIONS = ("to", "cuda", "copy_"), ("tensor", "as_tensor")
OWN = {name: getattr(torch.Tensor, name) for name in METHODS} | {name: getattr(torch, name) for name in FUNCTIONS}


def replaced() -> dict[str, Any]:
    """The functions as a script finds them now."""
    return {name: getattr(torch.Tensor if name in METHODS else torch, name) for name in OWN}


class Seen(torch.Tensor):
    """Keeps what it is asked."""

    asked: ClassVar[list[tuple[Any, tuple[Any, ...], dict[str, Any]]]] = []

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cls.asked.append((func, args, kwargs or {}))
        return super().__torch_function__(func, types, args, kwargs or {})


class Watch(TorchFunctionMode):
    """Keeps what was called within it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.asked.append((func, args, kwargs or {}))
        return func(*args, **(kwargs or {}))


def keywords() -> None:
    x, y = torch.zeros(3), torch.ones(3)
    assert x.copy_(other=y) is x and x.tolist() == [1, 1, 1]
    assert x.copy_(other=y * 2, non_blocking=True).tolist() == [2, 2, 2]
    assert x.to(tensor=y.double()).dtype is torch.float64
    assert x.to(dtype=torch.float16, copy=True, memory_format=torch.preserve_format).dtype is torch.float16
    assert x.to(x, True, True) is not x
    assert x.cuda(device="cuda:0", non_blocking=True, memory_format=torch.preserve_format).device.type == "mps"
    assert torch.tensor(data=[1.0], dtype=torch.float16, device="cuda", requires_grad=True).requires_grad
    assert torch.as_tensor(data=[1], device="cuda").device.type == "mps"


def errors() -> None:
    """Torch's own words for arguments that it does not take."""
    x = torch.zeros(3)
    wrong = (
        ("to", (x, "nowhere"), {}),
        ("to", (x,), {"src": x}),
        ("to", (1, "cpu"), {}),
        ("copy_", (x,), {}),
        ("copy_", (x,), {"src": x}),
        ("cuda", (x,), {"device": "cpu"}),
        ("tensor", ([1.0], torch.float32), {}),
        ("as_tensor", (), {}),
        ("tensor", ([1.0],), {"devise": "cpu"}),
    )
    for name, args, kwargs in wrong:
        assert raised(replaced()[name], args, kwargs) == raised(OWN[name], args, kwargs), (name, args, kwargs)


def raised(function: Callable[..., Any], args: Any, kwargs: Any) -> tuple[type, str]:
    try:
        function(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - which one is what is asked
        return type(error), str(error)
    raise AssertionError("nothing raised")


def lazy_modules() -> None:
    nn = torch.nn
    lazy = {name: getattr(nn, name) for name in dir(nn) if name.startswith("Lazy")}
    assert len(lazy) >= 13
    for name, module in lazy.items():
        arguments = (4, 1) if "Conv" in name else (4,) if name == "LazyLinear" else ()
        for place in ("mps", "cuda", torch.device("cuda", 0)):
            assert {p.device.type for p in module(*arguments).to(place).parameters()} == {"mps"}, name
        assert {p.device.type for p in module(*arguments).cuda().parameters()} == {"mps"}, name
    linear = nn.LazyLinear(4).to("mps", torch.float16)
    assert linear(torch.ones(2, 3, dtype=torch.float16, device="mps")).shape == (2, 4)
    nn.LazyLinear(4).load_state_dict({key: value.cpu() for key, value in linear.state_dict().items()})


def subclasses() -> None:
    """A subclass is asked with the function that a script finds, and with the arguments that were given."""
    x = torch.zeros(3).as_subclass(Seen)
    found = replaced()
    for call, name, args, kwargs in (
        (lambda: x.to("cuda", non_blocking=True), "to", ("cuda",), {"non_blocking": True}),
        (lambda: x.cuda(), "cuda", (), {}),
        (lambda: x.copy_(torch.ones(3), True), "copy_", None, {}),
        (lambda: torch.zeros(3).copy_(x, True), "copy_", None, {}),
    ):
        Seen.asked.clear()
        result = call()
        function, given, named = next(each for each in Seen.asked if each[0] == OWN[name])
        assert function is found[name] and function in {OWN[name]} and OWN[name] in [function]
        assert (args is None or given[1:] == args) and named == kwargs, (given, named)
        assert name == "copy_" or (type(result) is Seen and result.device.type == "mps")


def modes() -> None:
    x, found = torch.zeros(3), replaced()
    with Watch() as watch:
        x.to("cuda")
        x.cuda()
        x.copy_(torch.ones(3), True)
        torch.tensor([1.0], device="cuda")
        torch.as_tensor([1.0], device="cuda")
    functions = [function for function, _, _ in watch.asked]
    for name, function in found.items():
        assert any(each is function for each in functions), name
    assert [kwargs for function, _, kwargs in watch.asked if function == OWN["tensor"]] == [{"device": "cuda"}]


def device_contexts() -> None:
    with torch.device("meta"):
        assert torch.tensor([1.0]).device.type == "meta" and torch.as_tensor([1.0]).device.type == "meta"
    with torch.device("cuda"):
        assert torch.tensor([1.0]).device.type == "mps"


def tables_of_overrides() -> None:
    from torch import overrides

    assert set(map(overrides.is_tensor_method_or_property, (torch.Tensor.to, OWN["to"]))) == {True}
    for name, function in replaced().items():
        table = overrides.get_testing_overrides() if name in METHODS else overrides.get_ignored_functions()
        assert function in table and OWN[name] in table, name
        assert overrides.resolve_name(function) == f"torch.{'Tensor.' if name in METHODS else ''}{name}"


def dispatch_modes_and_fake_tensors() -> None:
    from torch._subclasses import FakeTensorMode
    from torch.utils._python_dispatch import TorchDispatchMode

    class Log(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    seen: list[str] = []
    with Log():
        torch.zeros(2).to(torch.float16)
        torch.zeros(2).copy_(torch.ones(2), non_blocking=True)
    assert "aten._to_copy.default" in seen and "aten.copy_.default" in seen
    with FakeTensorMode() as mode:
        fake = mode.from_tensor(torch.zeros(2))
        assert fake.to(torch.float16).dtype is torch.float16
        assert fake.to("cuda", non_blocking=True).device.type == "mps" and fake.cuda().device.type == "mps"
        assert torch.tensor([1.0]).device.type == "cpu"
        assert fake.clone().copy_(other=fake).shape == (2,)


def functional_transforms() -> None:
    x = torch.arange(6.0).view(2, 3)
    assert torch.equal(torch.func.vmap(lambda row: row.to(torch.float64) * torch.tensor(2.0))(x), (x * 2).double())
    assert torch.equal(torch.func.vmap(lambda row: row.clone().copy_(other=row + 1))(x), x + 1)
    assert torch.equal(torch.func.grad(lambda v: (v.to("cuda").to("cpu") ** 2).sum())(x), 2 * x)
    assert torch.func.jvp(lambda v: v.to(torch.float64), (x,), (x,))[1].dtype is torch.float64


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


def compiled_for_cuda() -> None:
    x = torch.arange(3.0).to("mps")

    def added(x: torch.Tensor) -> torch.Tensor:
        return x + torch.tensor([1.0, 2.0, 3.0]).to("cuda") + torch.tensor(1.0, device="cuda") + x.cpu().cuda()

    for backend in ("eager", "aot_eager"):
        assert torch.equal(torch.compile(added, backend=backend, fullgraph=True)(x), added(x))


def scripted_and_traced() -> None:
    source = "def f(x, n: int):\n    return x.to(torch.float64).copy_(torch.tensor([n])) + torch.as_tensor([n])\n"
    assert torch.jit.CompilationUnit(source).f(torch.zeros(1), 2).tolist() == [4]
    traced = torch.jit.trace(_moved, (torch.zeros(3),))
    assert torch.equal(traced(torch.ones(3)), _moved(torch.ones(3)))


def pickled_and_copied() -> None:
    for name, function in replaced().items():
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
            stored = pickle.dumps({"held": function}, protocol)
            assert pickle.loads(stored)["held"] is function, name
            assert b"patcher" not in stored  # a process without the patch loads torch's own
        assert copy.deepcopy([function])[0] is function and copy.copy(function) is function
    bound = pickle.loads(pickle.dumps(torch.zeros(3).to))
    assert bound(torch.float16).dtype is torch.float16


def names_and_types() -> None:
    for name, function in replaced().items():
        own = OWN[name]
        for attribute in ("__name__", "__qualname__", "__doc__", "__text_signature__"):
            assert getattr(function, attribute) == getattr(own, attribute), (name, attribute)
        assert repr(function) == repr(own) and hash(function) == hash(own)
        assert function == own and own == function and {function: 1}[own] == 1
        assert isinstance(function, type(own)) and callable(function)
        for question in (inspect.ismethoddescriptor, inspect.isroutine, inspect.isbuiltin, inspect.isfunction):
            assert question(function) == question(own), (name, question)
        assert raised(inspect.signature, (function,), {})[0] is raised(inspect.signature, (own,), {})[0]
        if name in METHODS:
            assert isinstance(function, types.MethodDescriptorType) and function.__objclass__ is own.__objclass__
            bound, theirs = getattr(torch.zeros(2), name), own.__get__(torch.zeros(2))
            assert (bound.__name__, bound.__doc__) == (theirs.__name__, theirs.__doc__)


KINDS: dict[str, Callable[[], None]] = {
    kind.__name__.replace("_", " "): kind
    for kind in (
        keywords,
        errors,
        lazy_modules,
        subclasses,
        modes,
        device_contexts,
        tables_of_overrides,
        dispatch_modes_and_fake_tensors,
        functional_transforms,
        compiled_and_exported,
        compiled_for_cuda,
        scripted_and_traced,
        pickled_and_copied,
        names_and_types,
    )
}


def went_through(kind: Callable[[], None]) -> str:
    try:
        kind()
    except Exception:  # noqa: BLE001 - what was raised is the outcome
        return traceback.format_exc(limit=-6)
    return ""


def undone() -> None:
    """Torch's own are back, copies by name included, and tables that were made in between still know them."""
    for name, function in replaced().items():
        assert function is OWN[name]
    assert COPIES.tensor is OWN["tensor"]
    source = "def f(n: int):\n    return torch.tensor([n])\n"
    assert torch.jit.CompilationUnit(source).f(2).tolist() == [2]
    with torch.device("meta"):
        assert torch.tensor([1.0]).device.type == "meta"
    assert torch.nn.LazyLinear(4).to("mps").weight.device.type == "mps"


COPIES = types.ModuleType("copies")

if __name__ == "__main__":
    handle = patch_for_mac(simulate="M1 8GB")
    sys.modules["copies"] = COPIES
    COPIES.tensor = torch.tensor  # type: ignore[attr-defined]
    outcomes = {name: went_through(kind) for name, kind in KINDS.items()}
    handle.undo()
    outcomes["undone"] = went_through(undone)
    Path(sys.argv[1]).write_text(json.dumps(outcomes))
