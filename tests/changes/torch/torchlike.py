"""Torch's replaced functions used in every way that torch's own can be: `python -m tests.changes.torch.torchlike F`.

Writes to the file F, for each name of `KINDS`, the exception that it raised, or "" where it went through.
"""

from __future__ import annotations

import copy
import functools
import inspect
import json
import pickle
import pkgutil
import sys
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch.jit import _builtins
from torch.overrides import TorchFunctionMode

from patcher import patch_for_mac
from patcher.engine.ledger import LEDGER
from tests.changes.torch.compiling import (
    COPIES,
    compiled_and_exported,
    compiled_calls,
    compiled_for_cuda,
    generators_and_streams,
    scripted_and_traced,
    traced_by_fx,
)
from tests.changes.torch.examples import EXAMPLES, NOT_TORCHS
from tests.changes.torch.own import OWN, of_tensor, own, raised, replaced


class Asked(torch.Tensor):
    """A subclass that keeps what it is asked and answers nothing."""

    calls: ClassVar[list[tuple[Any, ...]]] = []

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cls.calls.append((func, args, kwargs or {}, types))


class TakesOver(TorchFunctionMode):
    """A mode that keeps what is called within it and calls nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls.append((func, args, kwargs or {}, types))


class Kept(torch.Tensor):
    """A subclass that goes on to torch and stays of its class."""


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
        ("torch:Tensor.to", (x, "nowhere"), {}),
        ("torch:Tensor.to", (x,), {"src": x}),
        ("torch:Tensor.to", (1, "cpu"), {}),
        ("torch:Tensor.copy_", (x,), {}),
        ("torch:Tensor.copy_", (x,), {"src": x}),
        ("torch:Tensor.cuda", (x,), {"device": "cpu"}),
        ("torch:tensor", ([1.0], torch.float32), {}),
        ("torch:as_tensor", (), {}),
        ("torch:tensor", ([1.0],), {"devise": "cpu"}),
    )
    for target, args, kwargs in wrong:
        assert raised(replaced()[target], args, kwargs) == raised(OWN[target], args, kwargs), (target, args, kwargs)
    for target, function in replaced().items():
        assert raised(function, (), {"no_such": 1})[0] is raised(OWN[target], (), {"no_such": 1})[0], target


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
    """A subclass is asked what torch's own asks it, whichever argument it is, with the function that a script finds."""
    for target, function in replaced().items():
        args, kwargs = EXAMPLES[target]()
        for place in (n for n, value in enumerate(args) if isinstance(value, torch.Tensor)):
            given = (*args[:place], args[place].as_subclass(Asked), *args[place + 1 :])
            calls = asked_of_subclass(function, given, kwargs)
            right = [comparable((function, given, kwargs, (Asked,)))]
            if target not in NOT_TORCHS:
                right = as_found(asked_of_subclass(OWN[target], given, kwargs), target)
            assert calls == right, (target, place, calls, right)
            assert calls or place or target == "torch:sparse_coo_tensor", target
    out = torch.zeros(3).as_subclass(Asked)
    assert len(asked_of_subclass(torch.sum, (torch.ones(2, 3), 0), {"out": out})) == 1
    assert len(asked_of_subclass(torch.zeros, (3,), {"out": out})) == 1
    x = torch.arange(3.0).as_subclass(Kept)
    for moved in (x.to("cuda", non_blocking=True), x.cuda()):
        assert type(moved) is Kept and moved.device.type == "mps" and moved.tolist() == [0, 1, 2]
    assert type(torch.sum(x)) is type(x.sum()) is type(torch.zeros_like(x)) is Kept
    parameter = torch.nn.Parameter(torch.ones(2))
    assert parameter.to("cuda").requires_grad and not parameter.to("cuda").is_leaf


def asked_of_subclass(function: Any, args: Any, kwargs: Any) -> list[tuple[Any, ...]]:
    Asked.calls.clear()
    function(*args, **kwargs)
    return list(map(comparable, Asked.calls))


def modes() -> None:
    """A mode sees what it sees of torch's own, as it was called; its function is the one that a script finds."""
    for target, function in replaced().items():
        args, kwargs = EXAMPLES[target]()
        right = [comparable((function, args, kwargs, ()))]
        if target not in NOT_TORCHS:
            right = as_found(asked_of_mode(OWN[target], args, kwargs), target)
        calls = asked_of_mode(function, args, kwargs)
        assert calls == right, (target, calls, right)


def asked_of_mode(function: Any, args: Any, kwargs: Any) -> list[tuple[Any, ...]]:
    with TakesOver() as mode:
        function(*args, **kwargs)
    return list(map(comparable, mode.calls))


def comparable(call: tuple[Any, ...]) -> tuple[Any, ...]:
    function, args, kwargs, types = call
    return id(function), *map(id, args), {name: id(value) for name, value in kwargs.items()}, types


def as_found(calls: list[tuple[Any, ...]], target: str) -> list[tuple[Any, ...]]:
    """Calls of torch's own, with the function that a script finds for each C function that it took the place of."""
    found = {id(OWN[target]): id(pkgutil.resolve_name(target))}
    return [(found.get(function, function), *rest) for function, *rest in calls]


def device_contexts() -> None:
    with torch.device("meta"):
        assert torch.tensor([1.0]).device.type == "meta" and torch.as_tensor([1.0]).device.type == "meta"
    with torch.device("cuda"):
        assert torch.tensor([1.0]).device.type == "mps"


def tables_of_overrides() -> None:
    from torch import overrides

    for target, function in replaced().items():
        both = function, OWN[target]
        for table in (overrides.get_testing_overrides(), overrides.get_ignored_functions()):
            assert len({each in table for each in both}) == 1, target
        assert len({overrides.is_tensor_method_or_property(each) for each in both}) == 1, target
        assert overrides.resolve_name(function) == target.replace(":", ".")


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
    for target, function in replaced().items():
        theirs = OWN[target]
        for attribute in ("__name__", "__qualname__", "__doc__", "__module__", "__text_signature__"):
            there = getattr(theirs, attribute, "none")
            assert attribute == "__module__" or getattr(function, attribute, "none") == there, (target, attribute)
        assert function is not theirs and repr(function) == repr(theirs) and hash(function) == hash(theirs)
        assert function == theirs and theirs == function and {function: 1}[theirs] == 1 and function in [theirs]
        assert isinstance(function, type(theirs)) and callable(function)
        for question in (inspect.ismethoddescriptor, inspect.isroutine, inspect.isbuiltin, inspect.isfunction):
            assert question(function) == question(theirs), (target, question)
        assert raised(inspect.signature, (function,), {})[0] is raised(inspect.signature, (theirs,), {})[0]
        if of_tensor(target):
            assert isinstance(function, types.MethodDescriptorType) and function.__objclass__ is theirs.__objclass__
            bound, of_theirs = getattr(torch.zeros(2), function.__name__), theirs.__get__(torch.zeros(2))
            assert (bound.__name__, bound.__doc__) == (of_theirs.__name__, of_theirs.__doc__)


def device_classes() -> None:
    """Generators, streams and events are of the class that a script finds, which is torch's own to all who ask."""
    for name in ("Generator", "Stream", "Event"):
        found, theirs = getattr(torch, name), LEDGER.original(f"torch:{name}")
        assert found is not theirs and found == theirs and theirs == found and {found: 1}[theirs] == 1
        assert repr(found) == repr(theirs) and found.__doc__ == theirs.__doc__ and found.__name__ == name
        assert issubclass(theirs, found) and issubclass(found, theirs) and not issubclass(int, found)
        made = found(device="cuda")
        assert isinstance(made, found) and {found: name}[type(made)] == name
        assert pickle.loads(pickle.dumps(found)) is found and b"patcher" not in pickle.dumps(found)
        assert copy.deepcopy([found])[0] is found
    for place in ("cpu", "cuda"):
        generator = torch.Generator(place).manual_seed(3)
        copied = pickle.loads(pickle.dumps(generator)) if place == "cpu" else copy.deepcopy(generator)
        drawn = [torch.rand(4, generator=each, device=generator.device) for each in (generator, copied)]
        assert torch.equal(*drawn) and isinstance(copied, torch.Generator)

    class Mine(torch.Generator):
        """A user's."""

    assert isinstance(Mine("cuda"), Mine) and isinstance(Mine(), torch.Generator)
    assert not isinstance(torch.Generator(), Mine)
    named = functools.singledispatch(lambda given: "other")
    named.register(torch.Generator, lambda given: "generator")
    assert named(torch.Generator()) == "generator" and named(1) == "other"
    assert isinstance(torch.Generator(), torch.Generator | None)


def every_target_has_an_example() -> None:
    assert {"torch:Tensor.to", "torch:Tensor.cuda", "torch:Tensor.copy_", "torch:tensor", "torch:as_tensor"} <= set(OWN)
    assert set(OWN) <= set(EXAMPLES)


KINDS: dict[str, Callable[[], None]] = {
    kind.__name__.replace("_", " "): kind
    for kind in (
        every_target_has_an_example,
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
        compiled_calls,
        compiled_for_cuda,
        scripted_and_traced,
        traced_by_fx,
        generators_and_streams,
        device_classes,
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
    for target, function in replaced().items():
        assert function is OWN[target]
    assert COPIES.tensor is OWN["torch:tensor"]
    assert _builtins._find_builtin(COPIES) == "aten::of_a_library"
    assert not set(map(id, STANDING_IN)) & set(_builtins._get_builtin_table())
    source = "def f(n: int):\n    return torch.tensor([n])\n"
    assert torch.jit.CompilationUnit(source).f(2).tolist() == [2]
    with torch.device("meta"):
        assert torch.tensor([1.0]).device.type == "meta"
    assert torch.nn.LazyLinear(4).to("mps").weight.device.type == "mps"


STANDING_IN: list[Any] = []

if __name__ == "__main__":
    handle = patch_for_mac(simulate="M1 8GB")
    OWN.update(own())
    STANDING_IN.extend(replaced().values())
    sys.modules["copies"] = COPIES
    COPIES.tensor = torch.tensor  # type: ignore[attr-defined]
    outcomes = {name: went_through(kind) for name, kind in KINDS.items()}
    handle.undo()
    outcomes["undone"] = went_through(undone)
    Path(sys.argv[1]).write_text(json.dumps(outcomes))
