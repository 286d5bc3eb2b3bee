"""``linalg``: linear algebra and solvers of torch's database as test/test_linalg.py tries them, beside ``operators``.

Arguments with strides, results in ``out=``, empty and batched matrices, against the CPU; what mps refuses in its own
words and which sizes go to the CPU, from PyTorch's aten/src/ATen/native/mps/operations/LinearAlgebra.mm, whose texts
are in the wheels for macOS. Whether an operator works at all is what common_mps.py says of it; with a newer torch, also
what has got every kernel that it lacked.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from patcher.macs.mac import MacProfile, release_of
from patcher.simulator.wheels import records
from tests.fidelity import releases
from tests.fidelity.cases import Case
from tests.fidelity.claims import Claim, Claims, refused, says, works
from tests.fidelity.database import FORWARD, Database
from tests.fidelity.expectations import PASSES, SKIPPED, Expectation, applied
from tests.fidelity.measure import DEVICE, Different, to_cpu

LINALG = torch.linalg
EMPTY_OUT = refused("_refs/linalg/__init__.py")
"""torch 2.13's kernel for mps is in Python there, and leaves an ``out`` without elements as it is."""
SOLVERS = {
    "cholesky",
    "cholesky_inverse",
    "cholesky_solve",
    "geqrf",
    "logdet",
    "lu",
    "lu_solve",
    "lu_unpack",
    "matrix_exp",
    "ormqr",
    "pinverse",
    "qr",
    "svd",
    "triangular_solve",
}
SAMPLES = 60
"""The most sample inputs of an operator in one way."""


class Calls(TorchDispatchMode):
    """Notes the operators that are called, by ATen's names."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(str(func).removeprefix("aten.").removesuffix(".default"))
        return func(*args, **(kwargs or {}))


def noncontiguous(x: Any) -> Any:
    """The same numbers, every second of a wider tensor."""
    if not isinstance(x, Tensor) or x.dim() == 0 or x.numel() < 2:
        return x
    wide = x.new_zeros((*x.shape[:-1], 2 * x.shape[-1]))
    wide[..., ::2] = x.detach()
    return wide[..., ::2]


def with_strides(op: Any, dtype: torch.dtype) -> Iterator[tuple[Any, Any]]:
    for sample in islice(op.sample_inputs(DEVICE, dtype, set_seed=True), SAMPLES):
        given = sample.transform(noncontiguous)
        reference = sample.transform(lambda x: noncontiguous(to_cpu(x)))
        theirs = op(reference.input, *reference.args, **reference.kwargs)
        yield op(given.input, *given.args, **given.kwargs), theirs


def with_out(op: Any, dtype: torch.dtype) -> Iterator[tuple[Any, Any]]:
    """Into tensors of the right size whose last two dimensions are swapped in memory, and into empty ones."""
    for sample in islice(op.sample_inputs(DEVICE, dtype, set_seed=True), SAMPLES):
        reference = sample.transform(to_cpu)
        theirs = op(reference.input, *reference.args, **reference.kwargs)
        for empty in (True, False):
            out = pytree.tree_map(lambda x, empty=empty: place(x, empty), theirs)
            out = tuple(out) if isinstance(out, tuple) else out
            yield op(sample.input, *sample.args, **sample.kwargs, out=out), theirs
            yield out, tuple(theirs) if isinstance(theirs, tuple) else theirs


def place(x: Tensor, empty: bool) -> Tensor:
    if empty:
        return torch.empty(0, dtype=x.dtype, device=DEVICE)
    made = torch.empty(x.mT.shape if x.dim() > 1 else x.shape, dtype=x.dtype, device=DEVICE)
    return made.mT if x.dim() > 1 else made


def spd(*batch: int, n: int = 3) -> Tensor:
    """Positive definite matrices."""
    torch.manual_seed(0)
    x = torch.randn(*batch, n, n)
    return x @ x.mT + n * torch.eye(n)


SHAPES: dict[str, Callable[[Callable[[Tensor], Tensor]], Any]] = {
    "inv-empty": lambda d: LINALG.inv(d(torch.ones(0, 0))),
    "inv-empty-batch": lambda d: LINALG.inv(d(torch.ones(2, 0, 0))),
    "inv-no-batch": lambda d: LINALG.inv(d(torch.ones(0, 3, 3))),
    "inv-batch": lambda d: LINALG.inv(d(spd(2, 2))),
    "solve-empty": lambda d: LINALG.solve(d(torch.ones(0, 0)), d(torch.ones(0, 2))),
    "solve-batch": lambda d: LINALG.solve(d(spd(2, 2)), d(torch.ones(2, 2, 3, 2))),
    "solve-vector": lambda d: LINALG.solve(d(spd()), d(torch.ones(3))),
    "solve-left-false": lambda d: LINALG.solve(d(spd(2)), d(torch.ones(2, 4, 3)), left=False),
    "det-empty": lambda d: LINALG.det(d(torch.ones(2, 0, 0))),
    "slogdet-batch": lambda d: LINALG.slogdet(d(spd(3))),
    "cholesky-empty": lambda d: LINALG.cholesky(d(torch.ones(3, 0, 0))),
    "cholesky-batch": lambda d: LINALG.cholesky(d(spd(2, 3))),
    "cholesky-upper": lambda d: LINALG.cholesky(d(spd(2)), upper=True),
    "cholesky-large": lambda d: LINALG.cholesky(d(spd(n=70))),
    "qr-empty": lambda d: LINALG.qr(d(torch.ones(0, 3))),
    "qr-complete": lambda d: LINALG.qr(d(spd(2)[..., :2]), mode="complete"),
    "qr-r": lambda d: LINALG.qr(d(spd(2)), mode="r")[1],
    "lu-empty": lambda d: LINALG.lu(d(torch.ones(0, 3))),
    "lu-batch": lambda d: LINALG.lu(d(spd(2, 2))),
    "lu_factor-wide": lambda d: LINALG.lu_factor(d(torch.randn(2, 3, generator=torch.Generator().manual_seed(0)))),
    "solve_triangular-empty": lambda d: LINALG.solve_triangular(d(torch.ones(0, 0)), d(torch.ones(0, 2)), upper=True),
    "solve_triangular-batch": lambda d: LINALG.solve_triangular(d(spd(4).tril()), d(torch.ones(4, 3, 2)), upper=False),
    "solve_triangular-unit": lambda d: LINALG.solve_triangular(
        d(spd().triu()), d(torch.ones(3, 2)), upper=True, unitriangular=True
    ),
    "householder-batch": lambda d: LINALG.householder_product(d(spd(2)), d(torch.ones(2, 2) / 4)),
    "multi_dot": lambda d: LINALG.multi_dot([d(spd()), d(spd()), d(torch.ones(3))]),
    "matrix_power-0": lambda d: LINALG.matrix_power(d(spd(2)), 0),
    "matrix_power-negative": lambda d: LINALG.matrix_power(d(spd(2)), -2),
    "norm-empty": lambda d: LINALG.norm(d(torch.ones(0))),
    "vector_norm-inf": lambda d: LINALG.vector_norm(d(spd(2)), float("inf"), dim=(0, 1)),
    "cross-broadcast": lambda d: LINALG.cross(d(torch.ones(2, 3)), d(torch.arange(3.0).view(1, 3))),
    "tensorsolve": lambda d: LINALG.tensorsolve(d(spd(n=6).view(6, 2, 3)), d(torch.ones(6))),
    "qr-513": lambda d: LINALG.qr(d(spd(n=513)))[1].shape,
}
"""Empty, batched and large matrices; in float32."""

C64, HALF, F32 = torch.complex64, torch.float16, torch.float32
NO_COMPLEX = "linalg.lu_factor(): MPS doesn't support complex types."
NO_HALF_LU = "linalg.lu_factor(): MPS supports float32 and complex64 inputs, got "
TRIANGULAR = "linalg.solve.triangular(); Only float is supported!"


def eye(dtype: torch.dtype, n: int = 3) -> Tensor:
    return torch.eye(n, dtype=dtype, device=DEVICE)


WORDS: dict[str, tuple[Callable[[torch.dtype], object], dict[torch.dtype, dict[str, str]]]] = {
    "lu_factor": (
        lambda t: LINALG.lu_factor(eye(t)),
        {
            **{t: {"2.13": NO_COMPLEX, "2.14": NO_COMPLEX} for t in (C64, torch.int32)},
            HALF: {"2.13": NO_COMPLEX, "2.14": NO_COMPLEX, "2.15": f"{NO_HALF_LU}Half"},
        },
    ),
    "lu-no-pivot": (
        lambda t: LINALG.lu(eye(t), pivot=False),
        {F32: dict.fromkeys(("2.13", "2.14"), "linalg.lu_factor(): MPS doesn't allow pivot == False.")},
    ),
    "solve": (
        lambda t: LINALG.solve(eye(t), eye(t)),
        {
            C64: {"2.13": "linalg.lu_factor(): MPS only supports floats.", "2.14": NO_COMPLEX},
            HALF: {
                "2.13": "linalg.lu_factor(): MPS only supports floats.",
                "2.14": NO_COMPLEX,
                "2.15": f"{NO_HALF_LU}Half",
            },
        },
    ),
    "inv": (
        lambda t: LINALG.inv(eye(t)),
        {C64: dict.fromkeys(("2.13", "2.14"), "linalg_inv: not supported for complex types yet!")},
    ),
    "det": (lambda t: LINALG.det(eye(t)), {t: {"2.13": NO_COMPLEX, "2.14": NO_COMPLEX} for t in (C64, HALF)}),
    "slogdet": (lambda t: LINALG.slogdet(eye(t)), {C64: {"2.13": NO_COMPLEX, "2.14": NO_COMPLEX}}),
    "solve_triangular": (
        lambda t: LINALG.solve_triangular(eye(t), eye(t), upper=True),
        {t: {"2.13": TRIANGULAR, "2.14": TRIANGULAR} for t in (C64, HALF, torch.int64)},
    ),
    "cholesky_solve": (
        lambda t: torch.cholesky_solve(eye(t), eye(t)),
        {t: {"2.13": TRIANGULAR, "2.14": TRIANGULAR} for t in (C64, HALF)},
    ),
    "cholesky_inverse": (
        lambda t: torch.cholesky_inverse(eye(t)),
        {t: dict.fromkeys(("2.13", "2.14"), "cholesky_inverse: MPS only supports float type!") for t in (C64, HALF)},
    ),
    "cholesky": (
        lambda t: LINALG.cholesky(eye(t)),
        {HALF: dict.fromkeys(("2.14", "2.15"), "linalg.cholesky: MPS supports float32 and complex64, but got Half")},
    ),
    "qr": (
        lambda t: LINALG.qr(eye(t)),
        {
            t: {
                "2.13": "linalg_qr: MPS currently supports float32 only",
                "2.14": "geqrf: MPS currently supports float32",
            }
            for t in (C64, HALF)
        },
    ),
    "svdvals": (
        lambda t: LINALG.svdvals(eye(t)),
        {
            HALF: dict.fromkeys(
                ("2.14", "2.15"), "linalg.svd: the MPS backend supports only float32 and complex64. Got Half."
            )
        },
    ),
    "lu_solve": (
        lambda t: LINALG.lu_solve(eye(t), torch.tensor([1, 2, 3], dtype=torch.int32, device=DEVICE), eye(t)),
        {t: {"2.13": TRIANGULAR, "2.14": "linalg.lu_solve(): MPS only supports float32."} for t in (C64, HALF)},
    ),
}
"""What is refused in which dtype, and the words by release."""

NOTICES: dict[str, tuple[Callable[[], object], dict[str, str]]] = {
    "qr": (
        lambda: LINALG.qr(torch.ones(513, 514, device=DEVICE)),
        {"2.13": "linalg_qr: MPS implementation is currently limited to min(m,n) <= 512, falling back to CPU."},
    ),
    "qr-512": (lambda: LINALG.qr(torch.ones(512, 600, device=DEVICE)), {}),
    "svdvals": (
        lambda: LINALG.svdvals(torch.ones(2, 129, 64, device=DEVICE)),
        {"2.14": "linalg.svd: matrix too large to stage in MPS threadgroup memory (33024 > 32768 bytes)"},
    ),
    "eigvalsh": (
        lambda: LINALG.eigvalsh(torch.ones(65, 65, device=DEVICE)),
        {"2.14": "linalg.eigh: matrix too large to stage in MPS threadgroup memory (33800 > 32768 bytes)"},
    ),
}
"""What is computed on the CPU for its size, with the words by release; without words nothing is said."""


class Linalg(Claims):
    """Operators of the database with strided arguments and with out=; shapes, words and sizes of their own."""

    EVERY: ClassVar[int] = 10

    def __init__(self, mac: MacProfile) -> None:
        super().__init__(mac)
        self._database = Database(mac.macos)
        self._release = release_of(mac.torch)

    def claims(self) -> Iterator[Claim]:
        for name, op in self._database.ops.items():
            if name in SOLVERS or (name.startswith("linalg.") and "singular" not in name):
                expected = self._listed(name, op)
                yield Claim(Case("linalg", name, "float32", "strided"), expected, partial(with_strides, op, F32))
                if op.supports_out:
                    stays_empty = name.endswith("lu_solve") and self._release == "2.13"
                    yield Claim(
                        Case("linalg", name, "float32", "out"),
                        EMPTY_OUT if stays_empty else expected,
                        partial(with_out, op, F32),
                    )
        for name, call in SHAPES.items():
            yield Claim(Case("linalg", name, "float32", "shape"), works(), partial(self._shape, call))
        for name, (refusing, dtypes) in WORDS.items():
            for dtype, by_release in dtypes.items():
                if self._release in by_release:
                    run = partial(self._words, partial(refusing, dtype), by_release[self._release])
                    text = str(dtype).removeprefix("torch.")
                    yield Claim(Case("linalg", name, text, "words"), works("LinearAlgebra.mm"), run)
        for name, (large, by_release) in NOTICES.items():
            if by_release.get(self._release) or not by_release:
                run = partial(self._notice, large, by_release.get(self._release, ""))
                yield Claim(Case("linalg", name, "float32", "notice"), works("LinearAlgebra.mm"), run)
        yield Claim(Case("linalg", "singular", "float32", "words"), works("LinearAlgebraUtils.cpp"), self._singular)

    def _listed(self, name: str, op: Any) -> Expectation:
        if op.aten_name in records.record(releases.installed()).functions() - records.record(self._release).functions():
            return refused("gone from torch")
        found = applied(self._database.decorators(name, "float32", FORWARD), dtype=F32, op=op)
        if found.verdict == PASSES or self._release == releases.installed():
            return Expectation(found.verdict, self._database.list_naming(name, "float32", FORWARD) or found.source)
        return works("kernels of the wheel") if not self._lacking(op) else Expectation(SKIPPED)

    def _lacking(self, op: Any) -> set[str]:
        """The operators that a call is made of and that have no kernel on the Mac."""
        calls = Calls()
        with calls:
            for sample in islice(op.sample_inputs("cpu", F32, set_seed=True), SAMPLES):
                op(sample.input, *sample.args, **sample.kwargs)
        wheel = records.record(self._release)
        has = wheel.with_kernel() | wheel.by_hand()
        composite = "CompositeExplicitAutograd"
        return {
            name
            for name in calls.names - has
            if not torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}", composite)
        }

    @staticmethod
    def _shape(call: Callable[[Callable[[Tensor], Tensor]], Any]) -> Iterator[tuple[Any, Any]]:
        yield call(lambda x: x.to(DEVICE)), call(lambda x: x)

    @staticmethod
    def _words(call: Callable[[], object], words: str) -> Iterator[tuple[Any, Any]]:
        yield says(call, words), "equal"

    @staticmethod
    def _notice(call: Callable[[], object], words: str) -> Iterator[tuple[Any, Any]]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
        said = [str(warning.message) for warning in caught]
        if (words and not any(words in each for each in said)) or (not words and said):
            raise Different(f"{said} instead of {words!r}")
        yield len(said), 1 if words else 0

    @staticmethod
    def _singular() -> Iterator[tuple[Any, Any]]:
        """LinAlgError, as on every device: the checks are above the kernels."""
        zeros = torch.zeros(3, 3, device=DEVICE)
        for call, words in (
            (lambda: LINALG.inv(zeros), "the inversion could not be completed because the input matrix is singular"),
            (lambda: LINALG.solve(zeros, zeros), "The solver failed because the input matrix is singular"),
            (lambda: LINALG.cholesky(zeros), "because the input is not positive-definite"),
        ):
            yield says(call, words, LINALG.LinAlgError), "equal"


CORPUS = Linalg
