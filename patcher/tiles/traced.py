"""A launch within what torch traces: the operator ``patcher::triton_kernel``, which says what it writes.

Dynamo, fake tensors, functionalization and proxies see one call of an operator, and no Triton. `launch` is read by
Dynamo as it stands, so it is plain Python over constants, tensors and symbolic numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeVar

import torch
from torch.fx.experimental.symbolic_shapes import guard_scalar

from patcher.errors import KernelNotSupported, LaunchRefused, compose
from patcher.tiles.backends import fit as fit_of
from patcher.tiles.fit import Fit
from patcher.tiles.launch import Kernel, num_warps, tensors_in

F = TypeVar("F", bound=Callable[..., Any])

_constant: Callable[[F], F] = torch.compiler.assume_constant_result
_disable: Any = torch.compiler.disable
_uncompiled: Callable[[F], F] = _disable(
    reason="the launch of a Triton kernel that cannot be traced, or not run: without torch.compile it says why"
)

KINDS = TENSOR, WHOLE, REAL, CONSTANT = "tensor", "whole", "real", "constant"
STAND_INS = {WHOLE: 2, REAL: 0.5}
"""Numbers of the types that symbolic ones have mostly; a run looks at the true ones."""


class Launchable(Protocol):
    """What is asked of ``@triton.jit``'s kernels.

    Attributes:
        arg_names: the names of its parameters, in order.
        constants: those that are annotated ``tl.constexpr``.
        defaults: parameters to their default values.
        kernel: its programs.
    """

    arg_names: list[str]
    constants: tuple[str, ...]
    defaults: dict[str, Any]

    @property
    def kernel(self) -> Kernel: ...


@dataclass(frozen=True)
class Plan:
    """What a traced launch is, but for its tensors and numbers.

    Attributes:
        kernel: the kernel.
        constants: parameters and options to values that are known while it is traced.
        written, read: the parameters that are tensors, by what the kernel does with them, or with the same tensor
            under another name.
        whole, real: the parameters that are whole and real numbers.
    """

    kernel: Kernel
    constants: Mapping[str, Any]
    written: tuple[str, ...]
    read: tuple[str, ...]
    whole: tuple[str, ...]
    real: tuple[str, ...]


plans: dict[str, Plan] = {}
"""By the name that stands in a traced graph: the kernel's, and digests of its arguments and of its program.

Torch keeps compiled graphs for other processes, so that a name means the same launch in all of them.
"""

_wrapped: ContextVar[bool] = ContextVar("wrapped", default=False)


@contextmanager
def as_operator() -> Iterator[None]:
    """Launches in here go through the operator, so that whatever traces sees them."""
    token = _wrapped.set(True)
    try:
        yield
    finally:
        _wrapped.reset(token)


def wanted() -> bool:
    """Whether a launch goes through the operator."""
    return torch.compiler.is_compiling() or _wrapped.get()


def launch(kernel: Launchable, grid: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Launches ``kernel`` through the operator, or as it is, which ends a compiled graph, where that cannot be.

    Raises as `Kernel.launch` does.
    """
    named = {**dict(zip(kernel.arg_names, args)), **kwargs}  # noqa: B905 - Dynamo reads no strict=False
    plan = None
    if len(named) == len(args) + len(kwargs):
        named = {**kernel.defaults, **named}
        plan = _plan(kernel, *_described(kernel, named))
    if plan is None:
        _launch_as_it_is(kernel, grid, args, kwargs)
        return
    name, written, read, whole, real = plan
    extents = grid(named) if callable(grid) else grid
    torch.ops.patcher.triton_kernel(
        name,
        list(extents) if isinstance(extents, (tuple, list)) else [extents],
        [named[parameter] for parameter in written],
        [named[parameter] for parameter in read],
        [stride for parameter in written + read for stride in named[parameter].stride()],
        [named[parameter] for parameter in whole],
        [named[parameter] for parameter in real],
    )


def fit(kernel: Launchable, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Fit:
    """Whether and where ``kernel`` runs with such arguments; for tensors that nothing is known of but their types."""
    named = {**kernel.defaults, **dict(zip(kernel.arg_names, args)), **kwargs}  # noqa: B905
    device = "cpu"
    for value in named.values():
        if isinstance(value, torch.Tensor):
            device = value.device.type
    found: Fit = _fit(kernel, device, *_described(kernel, named))
    return found


def _described(kernel: Launchable, named: dict[str, Any]) -> list[Any]:
    """What is known of arguments while they are traced.

    Their names, their kinds, for each tensor the place of the first tensor that it is, then their types or values.
    """
    kinds = [
        _kind(value, name in kernel.constants or name not in kernel.arg_names)  # the latter tune the compiler
        for name, value in named.items()
    ]
    values = [_known(value, kind) for value, kind in zip(named.values(), kinds)]  # noqa: B905
    tensors = [value for value, kind in zip(named.values(), kinds) if kind == TENSOR]  # noqa: B905
    same = [[tensor is other for other in tensors].index(True) for tensor in tensors]
    return [tuple(named), tuple(kinds), tuple(same), *values]


def _kind(value: Any, constant: bool) -> str:
    if constant or isinstance(value, (bool, torch.SymBool)):
        return CONSTANT
    if isinstance(value, torch.Tensor):
        return TENSOR
    if isinstance(value, (int, torch.SymInt)):
        return WHOLE
    return REAL if isinstance(value, (float, torch.SymFloat)) else CONSTANT


def _known(value: Any, kind: str) -> Any:
    """What is known of an argument while it is traced."""
    if kind == TENSOR:
        return value.dtype
    return _specialised(value) if kind == CONSTANT else None


def _specialised(value: Any) -> Any:
    """The number itself where it is symbolic; the graph is for that number only."""
    numbers = (bool, int, float, torch.SymBool, torch.SymInt, torch.SymFloat)
    return guard_scalar(value) if isinstance(value, numbers) else value


@_constant
def _plan(
    kernel: Launchable, names: tuple[str, ...], kinds: tuple[str, ...], same: tuple[int, ...], *values: Any
) -> Any:
    """Name and parameters of the plan for such arguments; None where the launch cannot be traced."""
    known = _arguments(names, kinds, values)
    of = {kind: tuple(n for n, found in zip(names, kinds, strict=True) if found == kind) for kind in KINDS}
    if any(map(tensors_in, (known[name] for name in of[CONSTANT]))):
        return None
    try:
        program, written = kernel.kernel.accesses(known)
    except (KernelNotSupported, LaunchRefused):
        return None
    changed = {first for name, first in zip(of[TENSOR], same, strict=True) if name in written}
    through = {name for name, first in zip(of[TENSOR], same, strict=True) if first in changed}
    parts = (
        tuple(name for name in of[TENSOR] if name in through),
        tuple(name for name in of[TENSOR] if name not in through),
        of[WHOLE],
        of[REAL],
    )
    constants = {name: known[name] for name in of[CONSTANT]}
    called = f"{program.name}#{_digest((*parts, *map(_text, constants.items())))}"
    name = f"{called}.{_digest((str(program),))}"
    plans[name] = Plan(kernel.kernel, constants, *parts)
    return (name, *parts)


def _digest(parts: tuple[Any, ...]) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def _text(value: Any) -> str:
    """The same for the same value in every process."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_text, value))})"
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    return repr(value)


@_constant
def _fit(
    kernel: Launchable, device: str, names: tuple[str, ...], kinds: tuple[str, ...], _: tuple[int, ...], *values: Any
) -> Fit:
    known = _arguments(names, kinds, values)
    try:
        program = kernel.kernel.compile((), known)
    except (KernelNotSupported, LaunchRefused):
        return Fit.NOT_AT_ALL
    return fit_of(program, (), device, num_warps(known))


def _arguments(names: tuple[str, ...], kinds: tuple[str, ...], values: tuple[Any, ...]) -> dict[str, Any]:
    """What stands for the arguments when a program is made: types for tensors, and numbers for symbolic ones."""
    return {n: STAND_INS.get(kind, value) for n, kind, value in zip(names, kinds, values, strict=True)}


@_uncompiled
def _launch_as_it_is(kernel: Launchable, grid: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    kernel.kernel.launch(grid, args, kwargs)


# -- the operator --------------------------------------------------------------------------------------------------


def _run(
    name: str,
    grid: list[int],
    written: list[torch.Tensor],
    read: list[torch.Tensor],
    strides: list[int],
    whole: list[int],
    real: list[float],
) -> None:
    """Launches what was planned.

    Args:
        strides: those of all tensors as they were while they were traced, which the numbers speak of.

    Raises:
        LaunchRefused: another process has traced the launch, and this one has not.
    """
    plan, rest = _planned(name), iter(strides)
    tensors = [_strided(tensor, tuple(islice(rest, tensor.dim()))) for tensor in (*written, *read)]
    names = (*plan.written, *plan.read, *plan.whole, *plan.real)
    arguments = dict(zip(names, (*tensors, *whole, *real), strict=True))
    plan.kernel.launch(tuple(grid), (), {**plan.constants, **arguments})
    for tensor, passed in zip(written, tensors, strict=False):
        if passed is not tensor:
            tensor.copy_(passed)


def _planned(name: str) -> Plan:
    """The plan of that name; where there is none, as the kernel has changed since a graph was kept, that of today's."""
    if name in plans:
        return plans[name]
    called = name.rpartition(".")[0]
    likely = [plan for known, plan in plans.items() if known.rpartition(".")[0] == called]
    if len(likely) == 1:
        return likely[0]
    raise LaunchRefused(
        compose(
            f"the Triton kernel of the traced launch {name} is not known",
            found="a graph that another process has traced; kernels are not saved with it",
            left="nothing was computed",
            run="trace it in this process; for a kernel that has changed, without torch's caches: "
            "TORCHINDUCTOR_FORCE_DISABLE_CACHES=1",
        )
    )


def _strided(tensor: torch.Tensor, strides: tuple[int, ...]) -> torch.Tensor:
    """``tensor`` where it has these strides, else a copy that has them: a compiler may choose others."""
    if all(size == 1 or a == b for size, a, b in zip(tensor.shape, tensor.stride(), strides, strict=True)):
        return tensor
    return torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device=tensor.device).copy_(tensor)


def _run_fake(*_: Any) -> None:
    """Nothing comes out, and fake tensors hold nothing that could be written."""


_new_library: Any = torch.library.Library
_LIBRARY = _new_library("patcher", "FRAGMENT")
_LIBRARY.define(
    "triton_kernel(str name, SymInt[] grid, Tensor(a!)[] written, Tensor[] read, SymInt[] strides, SymInt[] whole, "
    "float[] real) -> ()",
    # Exact strides would be asked for by needs_exact_strides, with which torch 2.13 fails where it has to clone a
    # tensor of symbolic size (an AssertionError in replace_by_example).
    tags=(torch.Tag.needs_fixed_stride_order, torch.Tag.pt2_compliant_tag),
)
_LIBRARY.impl("triton_kernel", _run, "CompositeExplicitAutograd")
torch.library.register_fake("patcher::triton_kernel", _run_fake, lib=_LIBRARY)
for _key in ("Autograd", "ADInplaceOrView"):  # as a launch is: autograd does not see it
    _LIBRARY.impl("triton_kernel", torch.library.fallthrough_kernel, _key)
