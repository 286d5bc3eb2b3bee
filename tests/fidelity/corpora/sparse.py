"""``sparse``: what PyTorch's test/test_sparse.py tries, on mps, and which dtypes the Metal kernels have.

Operators of torch's database on sparse COO tensors, against the CPU's sparse results. Other sparse layouts, which no
mps has (pytorch#196192, ``new_compressed_tensor``). Products, sums, softmax and structure in every dtype, against the
same on the CPU, in float64 where its kernel lacks the dtype. Which operators have a kernel says torch's wheel for macOS
(``SparseMPS`` in native_functions.yaml); which dtypes, the functions in its Metal libraries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from patcher.macs.mac import MacProfile, release_of
from patcher.simulator.wheels import records
from tests.fidelity.cases import Case, dtype_name
from tests.fidelity.claims import Claim, Claims, refused, works
from tests.fidelity.database import FORWARD, Database
from tests.fidelity.expectations import FAILS, Expectation, applied
from tests.fidelity.measure import DEVICE, to_cpu

FLOATING = {torch.float32, torch.float16, torch.bfloat16}
INTEGERS = {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8}
NUMBERS = FLOATING | INTEGERS | {torch.complex64}
DTYPES = NUMBERS | {torch.bool}
NARROW = INTEGERS - {torch.int64} | {torch.bool}

METAL = {
    "coalesce_with_positions_kernel": DTYPES,
    "dense_sparse_mul_kernel": FLOATING | {torch.int64, torch.complex64},
    "fused_gather_mul_kernel": NUMBERS,
    "spmm_addmm_coo": NUMBERS,
    "softmax_sparse_forward": FLOATING,
}
"""The dtypes that a Metal function is compiled for, by the names in the wheels' libraries (2.13.0 and 2.14.1)."""

NO_LAYOUT = refused("pytorch#196192")
NO_KERNEL = refused("no SparseMPS kernel")
ANYWHERE = refused("SparseTensorMath.cpp")
"""Refused on every device: the sum of narrow integers is in int64, and the tensor of it is not."""


def matrix(dtype: torch.dtype, device: str, dense: int = 0) -> Tensor:
    """A 3 x 4 matrix with four entries, one of them given twice, each with ``dense`` dimensions of two numbers."""
    indices = torch.tensor([[0, 2, 1, 0], [1, 3, 0, 1]])
    sizes = (2,) * dense
    return torch.sparse_coo_tensor(indices.to(device), numbers(dtype, device, 4, *sizes), (3, 4, *sizes))


def numbers(dtype: torch.dtype, device: str, *sizes: int) -> Tensor:
    return torch.arange(1, 1 + torch.Size(sizes).numel()).reshape(sizes).remainder(5).to(dtype).to(device)


Make = Callable[[torch.dtype, str], Any]

KERNELS: dict[str, tuple[str, Make]] = {
    "coalesce": ("coalesce_with_positions_kernel", lambda t, d: matrix(t, d).coalesce()),
    "add": ("coalesce_with_positions_kernel", lambda t, d: matrix(t, d) + matrix(t, d).t().t()),
    "matmul": ("coalesce_with_positions_kernel", lambda t, d: torch.sparse.mm(matrix(t, d), matrix(t, d).t())),
    "mul-dense": ("dense_sparse_mul_kernel", lambda t, d: matrix(t, d) * numbers(t, d, 3, 4)),
    "dense-mul": ("dense_sparse_mul_kernel", lambda t, d: numbers(t, d, 3, 4) * matrix(t, d)),
    "mul-hybrid-dense": ("dense_sparse_mul_kernel", lambda t, d: matrix(t, d, 1) * numbers(t, d, 3, 4, 2)),
    "mul": ("fused_gather_mul_kernel", lambda t, d: matrix(t, d) * matrix(t, d)),
    "mul-hybrid": ("fused_gather_mul_kernel", lambda t, d: matrix(t, d, 1) * matrix(t, d, 1)),
    "mm": ("spmm_addmm_coo", lambda t, d: torch.mm(matrix(t, d), numbers(t, d, 4, 2))),
    "dense-mm": ("spmm_addmm_coo", lambda t, d: torch.mm(numbers(t, d, 2, 3), matrix(t, d))),
    "mv": ("spmm_addmm_coo", lambda t, d: torch.mv(matrix(t, d), numbers(t, d, 4))),
    "addmm": ("spmm_addmm_coo", lambda t, d: torch.addmm(numbers(t, d, 3, 2), matrix(t, d), numbers(t, d, 4, 2))),
    "softmax": ("softmax_sparse_forward", lambda t, d: torch.sparse.softmax(matrix(t, d), 1)),
    "log_softmax": ("softmax_sparse_forward", lambda t, d: torch.sparse.log_softmax(matrix(t, d), 0)),
}
"""Operators that run one Metal function of the dtype."""

STRUCTURE: dict[str, Make] = {
    "construct": matrix,
    "construct-empty": lambda t, d: torch.sparse_coo_tensor((3, 4), dtype=t, device=d),
    "empty-layout": lambda t, d: torch.empty(3, 4, dtype=t, device=d, layout=torch.sparse_coo),
    "zeros_like": lambda t, d: torch.zeros_like(matrix(t, d)),
    "indices": lambda t, d: matrix(t, d).coalesce().indices(),
    "values": lambda t, d: matrix(t, d).coalesce().values(),
    "to_dense": lambda t, d: matrix(t, d).to_dense(),
    "to_dense-hybrid": lambda t, d: matrix(t, d, 1).to_dense(),
    "to_sparse": lambda t, d: numbers(t, d, 3, 4).to_sparse(),
    "to_sparse-1": lambda t, d: numbers(t, d, 3, 4).to_sparse(1),
    "clone": lambda t, d: matrix(t, d).clone(),
    "copy_": lambda t, d: torch.zeros_like(matrix(t, d)).copy_(matrix(t, d)),
    "zero_": lambda t, d: matrix(t, d).zero_(),
    "to-float32": lambda t, d: matrix(t, d).to(t if t.is_complex else torch.float32),
    "t": lambda t, d: matrix(t, d).t(),
    "permute": lambda t, d: matrix(t, d, 1).permute(1, 0, 2),
    "unsqueeze": lambda t, d: matrix(t, d).unsqueeze(1),
    "narrow_copy": lambda t, d: matrix(t, d).narrow_copy(0, 0, 2),
    "index_select": lambda t, d: matrix(t, d).index_select(0, torch.tensor([2, 0, 2], device=d)),
    "index_select-dense": lambda t, d: matrix(t, d, 1).index_select(2, torch.tensor([1], device=d)),
    "select": lambda t, d: matrix(t, d)[0],
    "cat": lambda t, d: torch.cat([matrix(t, d), matrix(t, d)], 1),
    "stack": lambda t, d: torch.stack([matrix(t, d), matrix(t, d)]),
    "sparse_mask": lambda t, d: numbers(t, d, 3, 4).sparse_mask(matrix(t, d).coalesce()),
    "sparse_mask-sparse": lambda t, d: matrix(t, d).coalesce().sparse_mask(matrix(t, d).coalesce()),
    "dense-add": lambda t, d: numbers(t, d, 3, 4) + matrix(t, d),
    "mul-number": lambda t, d: matrix(t, d) * 2,
    "mul-scalar": lambda t, d: matrix(t, d) * numbers(t, d),
    "div-number": lambda t, d: matrix(t, d) / 2,
    "sum": lambda t, d: torch.sparse.sum(matrix(t, d)),
    "sum-0": lambda t, d: torch.sparse.sum(matrix(t, d), 0),
    "sum-hybrid": lambda t, d: torch.sparse.sum(matrix(t, d, 1), (0, 2)),
    "any": lambda t, d: matrix(t, d).any(),
    "is_coalesced": lambda t, d: (matrix(t, d).is_coalesced(), matrix(t, d).coalesce().is_coalesced()),
    "nnz": lambda t, d: (matrix(t, d)._nnz(), matrix(t, d).coalesce()._nnz(), matrix(t, d).sparse_dim()),
}
"""What moves values, adds them or multiplies them by a number, with the operators for dense tensors."""

ABSENT: dict[str, Make] = {
    "hspmm": lambda t, d: torch.hspmm(matrix(t, d), numbers(t, d, 4, 2)),
    "sspaddmm": lambda t, d: torch.sspaddmm(matrix(t, d)[:, :2], matrix(t, d), numbers(t, d, 4, 2)),
    "ones_like": lambda t, d: torch.ones_like(matrix(t, d)),
    "fill_": lambda t, d: matrix(t, d).fill_(1),
    "exp": lambda t, d: matrix(t, d).exp(),
    "amax": lambda t, d: matrix(t, d).amax(0),
    "index": lambda t, d: matrix(t, d)[torch.tensor([0], device=d)],
    "slice": lambda t, d: matrix(t, d)[:1],
    "as_strided": lambda t, d: matrix(t, d).as_strided((1,), (1,)),
    "to_sparse_csr": lambda t, d: matrix(t, d).to_sparse_csr(),
    "dense-to_sparse_csr": lambda t, d: numbers(t, d, 3, 4).to_sparse_csr(),
    "sampled_addmm": lambda t, d: torch.sparse.sampled_addmm(matrix(t, d), numbers(t, d, 3, 2), numbers(t, d, 2, 4)),
    "mul-broadcast": lambda t, d: matrix(t, d) * numbers(t, d, 4),
    "mul-broadcast-sparse": lambda t, d: matrix(t, d) * matrix(t, d).index_select(0, torch.tensor([0], device=d)),
    "bmm-half": lambda t, d: torch.bmm(torch.stack([matrix(torch.half, d)]), numbers(torch.half, d, 1, 4, 2)),
}
"""What no torch has for mps, or a Metal kernel refuses."""

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "csr": lambda x: x.to_sparse_csr(),
    "csc": lambda x: x.to_sparse_csc(),
    "bsr": lambda x: x.to_sparse_bsr((2, 2)),
    "bsc": lambda x: x.to_sparse_bsc((2, 2)),
}


def against_the_cpu(make: Make, dtype: torch.dtype) -> Iterator[tuple[Any, Any]]:
    """The device's result, and the CPU's; in float64, rounded, where the CPU lacks a kernel for the dtype."""
    ours = make(dtype, DEVICE)
    try:
        theirs = make(dtype, "cpu")
    except NotImplementedError:
        theirs = make(torch.float64, "cpu").to(dtype)
    if isinstance(theirs, Tensor):
        yield (ours.layout, ours.shape, ours.device.type), (theirs.layout, theirs.shape, "mps")
    yield ours, theirs


def op_against_the_cpu(op: Any, samples: Iterator[Any]) -> Iterator[tuple[Any, Any]]:
    """An operator of torch's database, on samples that are on the device."""
    for sample in samples:
        reference = sample.transform(to_cpu)
        try:
            theirs = op(reference.input, *reference.args, **reference.kwargs)
        except NotImplementedError:
            continue  # the CPU lacks a kernel: nothing to compare with
        yield op(sample.input, *sample.args, **sample.kwargs), theirs


def sparse_unary(op: Any, dtype: torch.dtype) -> Iterator[tuple[Any, Any]]:
    """As TestSparseUnaryUfuncs makes its tensors: dense samples, with zeros, made sparse."""
    for sample in op.sample_inputs(DEVICE, dtype, set_seed=True):
        every_second = torch.arange(sample.input.numel(), device=DEVICE).view(sample.input.shape) % 2 == 0
        sample.input = torch.where(every_second, sample.input, 0).to(dtype).to_sparse()
        yield from op_against_the_cpu(op, iter([sample]))


def moved(layout: Callable[[Tensor], Tensor]) -> Iterator[tuple[Any, Any]]:
    yield layout(torch.eye(4)).to("mps").layout, layout(torch.eye(4)).layout


def made(layout: Callable[[Tensor], Tensor]) -> Iterator[tuple[Any, Any]]:
    yield layout(torch.eye(4, device="mps")).layout, layout(torch.eye(4)).layout


class Sparse(Claims):
    """Operators of torch's database, kernels by dtype, structure, and layouts that mps has not."""

    EVERY: ClassVar[int] = 20

    def __init__(self, mac: MacProfile) -> None:
        super().__init__(mac)
        self._database = Database(mac.macos)
        self._kernels = records.record(release_of(mac.torch)).with_kernel("SparseMPS")

    def claims(self) -> Iterator[Claim]:
        for dtype in DTYPES:
            for name, (function, make) in KERNELS.items():
                has = dtype in METAL[function]
                yield self._claim(name, dtype, "kernel", works("metallib") if has else refused("metallib"), make)
            for name, make in STRUCTURE.items():
                expected = ANYWHERE if name == "sum-hybrid" and dtype in NARROW else works("SparseMPS")
                yield self._claim(name, dtype, "structure", expected, make)
        for name, make in ABSENT.items():
            yield self._claim(name, torch.float32, "absent", NO_KERNEL, make)
        norm = works("SparseMPS") if "linalg_vector_norm" in self._kernels else NO_KERNEL
        yield self._claim("vector_norm", torch.float32, "kernel", norm, self._norm)
        yield from self._layouts()
        yield from self._operators()

    @staticmethod
    def _norm(dtype: torch.dtype, device: str) -> Tensor:
        x = matrix(dtype, device)
        return torch.linalg.vector_norm(x if device == DEVICE else x.to_dense())

    def _layouts(self) -> Iterator[Claim]:
        for name, layout in LAYOUTS.items():
            for test, run in (("moved", moved), ("made", made)):
                yield Claim(Case("sparse", name, "float32", test), NO_LAYOUT, partial(run, layout))

    def _operators(self) -> Iterator[Claim]:
        from torch.testing._internal.common_methods_invocations import sparse_unary_ufuncs

        unary = {op.full_name for op in sparse_unary_ufuncs}
        for name, op in self._database.ops.items():
            for text in self._database.dtypes(name) if op.supports_sparse else ():
                dtype, expected = getattr(torch, text), self._listed(name, text)
                if name in unary:
                    yield Claim(Case("sparse", name, text, "unary"), expected, partial(sparse_unary, op, dtype))
                elif name.startswith("masked.") or name.endswith("_like"):
                    samples = partial(op.sample_inputs_sparse_coo, DEVICE, dtype, set_seed=True)
                    run = partial(self._sampled, op, samples)
                    yield Claim(Case("sparse", name, text, "samples"), expected, run)

    @staticmethod
    def _sampled(op: Any, samples: Callable[[], Iterator[Any]]) -> Iterator[tuple[Any, Any]]:
        yield from op_against_the_cpu(op, samples())

    def _listed(self, name: str, dtype: str) -> Expectation:
        """What the lists of common_mps.py say of the operator: the values are the operator's on a dense tensor."""
        found = applied(
            self._database.decorators(name, dtype, FORWARD), dtype=getattr(torch, dtype), op=self._database.ops[name]
        )
        return refused(self._database.list_naming(name, dtype, FORWARD)) if found.verdict == FAILS else works()

    def _claim(self, name: str, dtype: torch.dtype, test: str, expected: Expectation, make: Make) -> Claim:
        return Claim(Case("sparse", name, dtype_name(dtype), test), expected, partial(against_the_cpu, make, dtype))


CORPUS = Sparse
