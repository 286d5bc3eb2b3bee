"""``modules``: torch.nn's modules against the CPU, as PyTorch's test/test_modules.py runs them on a Mac.

Each in the dtypes that its entry names for mps, in training and, where it matters, as ``..._eval``:

- ``forward``: results are the CPU's, and the entry's reference's;
- ``gradient``: so are gradients, with contiguous inputs and others (``test_non_contiguous_tensors``, the test that runs
  backward on a Mac; ``test_cpu_gpu_parity`` is for CUDA alone);
- ``in_place``, ``memory_format``, ``pickle``: results do not depend on ``inplace=True``, on channels_last, on saving;
- ``error``: wrong arguments are refused with the entry's class and words.
"""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar

import torch
from torch.utils import _pytree as pytree

from patcher.macs.mac import MacProfile
from tests.fidelity.cases import Case, dtype_name
from tests.fidelity.corpora import Corpus
from tests.fidelity.database import prepare
from tests.fidelity.expectations import Expectation, applied, tolerance
from tests.fidelity.measure import CLOSE, DEVICE, EQUAL, SEED, Different, compare, raised, to_cpu

FORWARD, GRADIENT, IN_PLACE, MEMORY_FORMAT, PICKLE, ERROR = (
    "forward", "gradient", "in_place", "memory_format", "pickle", "error",
)  # fmt: skip
EVAL = "_eval"
TESTS = {
    FORWARD: "test_forward",
    GRADIENT: "test_non_contiguous_tensors",
    IN_PLACE: "test_check_inplace",
    MEMORY_FORMAT: "test_memory_format",
    PICKLE: "test_pickle",
    ERROR: "test_errors",
}
"""Methods of TestModule in PyTorch's test/test_modules.py."""

ROUNDINGS = 8
"""In half precision a module of several operators rounds as often on another path, half a unit each time."""

GAPPED = 1e-4
"""By how much torch's test lets gradients with contiguous inputs and others differ."""

FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


class Modules(Corpus):
    """Each entry of ``module_db``."""

    EVERY: ClassVar[int] = 20

    def __init__(self, mac: MacProfile) -> None:
        super().__init__(mac)
        prepare(mac.macos)
        from torch.testing._internal.common_modules import module_db

        self._infos = {info.name: info for info in module_db}

    def cases(self) -> list[Case]:
        return sorted(
            Case("modules", name, dtype_name(dtype), test)
            for name, info in self._infos.items()
            for dtype in info.supported_dtypes("mps")
            for test in _tests(info)
        )

    def expectation(self, case: Case) -> Expectation:
        return applied(self._decorators(case), module_info=self._infos[case.name], **_parameters(case))

    def outcomes(self, case: Case) -> Iterator[str]:
        info, given = self._infos[case.name], _parameters(case)
        test = case.test.removesuffix(EVAL)
        if test == ERROR:
            yield from _refusals(info, **given)
            return
        allowed = self.allowed(case, tolerance(self._decorators(case), given["dtype"]))
        differentiable = test not in (FORWARD, PICKLE)
        for each in info.module_inputs_func(info, device=DEVICE, requires_grad=differentiable, **given):
            if each.forward_input is not None:
                yield _RUNS[test](_Sample(info, each, allowed=allowed, **given))

    def _decorators(self, case: Case) -> list[Any]:
        given = _parameters(case)
        method = TESTS[case.test.removesuffix(EVAL)]
        found: list[Any] = self._infos[case.name].get_decorators("TestModule", method, "mps", given["dtype"], given)
        return found


class _Sample:
    """One way to construct and call a module, on the device and on the CPU."""

    def __init__(self, info: Any, given: Any, dtype: torch.dtype, training: bool, allowed: tuple[float, float]) -> None:
        self.info, self.dtype, self.training, self.allowed = info, dtype, training, allowed
        self.made = given.constructor_input.args, given.constructor_input.kwargs
        self.called = given.forward_input.args, given.forward_input.kwargs
        self.reference = given.reference_fn

    def module(self, **more: Any) -> torch.nn.Module:
        """The module on the device."""
        return self._made(DEVICE, self.dtype, self.made, self.called, **more)

    def _made(self, device: str, dtype: torch.dtype, made_of: Any, called: Any, **more: Any) -> torch.nn.Module:
        """The module; a lazy one has seen an input."""
        args, kwargs = made_of
        torch.manual_seed(SEED)
        made: torch.nn.Module = self.info.module_cls(*args, **kwargs, **more)
        made.to(device).to(dtype).train(self.training)
        if self.info.is_lazy:
            args, kwargs = called
            with torch.no_grad():
                made(*args, **kwargs)
        return made

    def compare(self, ours: Any, theirs: Any, whose: str, atol: float = 0.0, roundings: bool = False) -> str:
        """``"equal"`` or ``"close"``; raises `Different`, which says whose result theirs is.

        Args:
            roundings: theirs was computed on another path, which in half precision rounds elsewhere.
        """
        allowed = max(atol, self.allowed[0]), self.allowed[1]
        return _compare(ours, theirs, whose, allowed, roundings=roundings and self.half)

    @property
    def eps(self) -> float:
        """The distance from 1, below which incoming gradients are, to the next number."""
        return torch.finfo(self.dtype).eps

    @property
    def half(self) -> bool:
        return self.dtype.itemsize == 2

    def compare_with_cpu(self, ours: Any, module: torch.nn.Module, backward: bool = True) -> str:
        """Results, and gradients, with the CPU's.

        In half precision they may differ from them by twice as much as these differ from float32's, and some roundings;
        where the CPU has no kernel they are compared with float32's.
        """
        if not self.half:
            return self.compare(ours, self._on_the_cpu(module, self.dtype, backward), "the CPU")
        wide = self._on_the_cpu(module, torch.float32, backward)
        try:
            half = self._on_the_cpu(module, self.dtype, backward)
        except (NotImplementedError, RuntimeError):  # no kernel, as operators and losses say it
            return _compare(ours, wide, "the CPU in float32", self.allowed, any_dtype=True, roundings=True)
        seen = {
            _compare(x, y, "the CPU", (max(2 * _distance(y, z), self.allowed[0]), self.allowed[1]), roundings=True)
            for x, y, z in zip(*map(pytree.tree_leaves, (ours, half, wide)), strict=True)
        }
        return CLOSE if CLOSE in seen else EQUAL

    def _on_the_cpu(self, ours: torch.nn.Module, dtype: torch.dtype, backward: bool) -> Any:
        """Result and gradients of the CPU with the parameters of ours."""
        called = _on_cpu(self.called)
        if dtype != self.dtype:
            called = _mapped(lambda x: _float32(x, self.dtype), called)
        module = self._made("cpu", dtype, _on_cpu(self.made), called)
        module.load_state_dict(ours.state_dict())
        return _run(module, called, backward)


def _forward(sample: _Sample) -> str:
    module = sample.module()
    ours = _run(module, sample.called, backward=False)
    seen = sample.compare_with_cpu(ours, module, backward=False)
    if sample.reference is not None:
        args, kwargs = sample.called
        torch.manual_seed(SEED)
        sample.compare(ours[0], sample.reference(module, *args, **kwargs), "the reference")
    return seen


def _gradient(sample: _Sample) -> str:
    module = sample.module()
    ours = _run(module, sample.called)
    seen = sample.compare_with_cpu(ours, module)
    gapped = _run(module, _mapped(_gapped, sample.called))
    return (
        CLOSE
        if CLOSE
        in (seen, sample.compare(gapped, ours, "contiguous inputs", max(GAPPED, sample.eps / 2), roundings=True))
        else EQUAL
    )


def _in_place(sample: _Sample) -> str:
    (first, *others), kwargs = sample.called
    ours = _run(sample.module(inplace=False), ((first, *others), kwargs), of=first)
    copied = first.detach().clone().requires_grad_()
    torch.manual_seed(SEED)
    result = sample.module(inplace=True)(copied.clone(), *others, **kwargs)
    return sample.compare((result, _gradients(result, copied)), ours, "the module that makes a new tensor")


def _memory_format(sample: _Sample) -> str:
    module, seen = sample.module(), [EQUAL]
    expected = _run(module, sample.called, backward=sample.training)
    dim = max((x.dim() for x in pytree.tree_leaves(sample.called[0]) if isinstance(x, torch.Tensor)), default=0)
    formats = [torch.contiguous_format] + ([FORMATS[dim]] if dim in FORMATS else [])
    for given in formats:
        called = _mapped(partial(_in_format, memory_format=given), sample.called)
        for had in [torch.preserve_format, *formats]:
            module.to(memory_format=had)
            found = _run(module, called, backward=sample.training)
            seen.append(sample.compare(found, expected, "contiguous inputs", roundings=True))
            affects = sample.info.module_memformat_affects_out and had in FORMATS.values()
            _check_format(found[0], given if given in FORMATS.values() or not affects else had)
            if sample.training:
                _check_format(found[1], given if given in FORMATS.values() or not affects else had)
    return CLOSE if CLOSE in seen else EQUAL


def _pickle(sample: _Sample) -> str:
    module, file = sample.module(), io.BytesIO()
    before, _ = _run(module, sample.called, backward=False)
    torch.save(module, file)
    file.seek(0)
    after, _ = _run(torch.load(file, weights_only=False), sample.called, backward=False)
    return sample.compare(after, before, "the module before")


_RUNS = {
    FORWARD: _forward,
    GRADIENT: _gradient,
    IN_PLACE: _in_place,
    MEMORY_FORMAT: _memory_format,
    PICKLE: _pickle,
}


def _tests(info: Any) -> list[str]:
    tests = [FORWARD, GRADIENT, MEMORY_FORMAT, PICKLE]
    if "inplace" in inspect.signature(info.module_cls).parameters:
        tests.append(IN_PLACE)
    if info.module_error_inputs_func is not None:
        tests.append(ERROR)
    return [*tests, *(test + EVAL for test in tests)] if info.train_and_eval_differ else tests


def _parameters(case: Case) -> dict[str, Any]:
    return {"dtype": getattr(torch, case.dtype), "training": not case.test.endswith(EVAL)}


def _refusals(info: Any, dtype: torch.dtype, training: bool) -> Iterator[str]:
    """Construction or a call must raise what the entry says."""
    for wrong in info.module_error_inputs_func(
        info, device=DEVICE, dtype=dtype, requires_grad=False, training=training
    ):
        made, called = wrong.module_error_input.constructor_input, wrong.module_error_input.forward_input
        if wrong.error_on.name == "CONSTRUCTION_ERROR":
            yield raised(wrong, info.module_cls, *made.args, **made.kwargs)
        else:
            yield raised(wrong, info.module_cls(*made.args, **made.kwargs), *called.args, **called.kwargs)


def _run(module: torch.nn.Module, called: Any, backward: bool = True, of: Any = None) -> tuple[Any, Any]:
    """A module's result, and the gradients of its differentiable inputs and parameters, or of ``of``."""
    args, kwargs = called
    torch.manual_seed(SEED)
    result = module(*args, **kwargs)
    if not backward:
        return result, None
    return result, _gradients(result, (args, kwargs, list(module.parameters())) if of is None else of)


def _gradients(result: Any, inputs: Any) -> Any:
    outputs, leaves = _differentiable(result), _differentiable(inputs)
    if not outputs or not leaves:
        return None
    generator = torch.Generator().manual_seed(SEED)
    incoming = [torch.empty_like(x).copy_(torch.rand(x.shape, generator=generator)) for x in outputs]
    return torch.autograd.grad(outputs, leaves, incoming, allow_unused=True)


def _differentiable(values: Any) -> list[torch.Tensor]:
    return [x for x in pytree.tree_leaves(values) if isinstance(x, torch.Tensor) and x.requires_grad]


def _compare(
    ours: Any,
    theirs: Any,
    whose: str,
    allowed: tuple[float, float],
    any_dtype: bool = False,
    roundings: bool = False,
) -> str:
    eps = torch.finfo(torch.float16).eps
    try:
        return compare(ours, theirs, allowed, any_dtype, ROUNDINGS / 2 * eps if roundings else 0.0)
    except Different as different:
        raise Different(f"with {whose}: {different}") from different


def _distance(x: Any, y: Any) -> float:
    if not isinstance(x, torch.Tensor) or x.numel() == 0 or not x.is_floating_point():
        return 0.0
    found = float((x.detach().float() - y.detach().float()).abs().max())
    return found if found < float("inf") else 0.0


def _on_cpu(values: Any) -> Any:
    return _mapped(to_cpu, values)


def _mapped(function: Callable[[Any], Any], values: Any) -> Any:
    """What a function makes of each leaf; a tensor that is there twice stays one tensor."""
    made = {id(x): function(x) for x in pytree.tree_leaves(values)}
    return pytree.tree_map(lambda x: made[id(x)], values)


def _float32(x: Any, dtype: torch.dtype) -> Any:
    if isinstance(x, torch.Tensor) and x.dtype == dtype:
        return x.detach().float().requires_grad_(x.requires_grad)
    return x


def _gapped(x: Any) -> Any:
    """The same numbers, with a gap behind each."""
    if not isinstance(x, torch.Tensor) or x.dim() == 0:
        return x
    return x.detach().repeat_interleave(2, dim=-1)[..., ::2].requires_grad_(x.requires_grad)


def _in_format(x: Any, memory_format: torch.memory_format) -> Any:
    if not isinstance(x, torch.Tensor):
        return x
    fits = memory_format == torch.contiguous_format or FORMATS.get(x.dim()) == memory_format
    copied = x.detach().clone(memory_format=memory_format if fits else torch.contiguous_format)
    return copied.requires_grad_(x.requires_grad)


def _check_format(values: Any, memory_format: torch.memory_format) -> None:
    """Raises Different for a tensor of the format's number of dimensions in another, or any other with gaps."""
    for x in pytree.tree_leaves(values):
        if isinstance(x, torch.Tensor):
            wanted = memory_format if FORMATS.get(x.dim()) == memory_format else torch.contiguous_format
            if not x.is_contiguous(memory_format=wanted):
                raise Different(f"a result of shape {tuple(x.shape)} is not in {wanted}")


CORPUS = Modules
