"""Sparse COO tensors on the simulated device, as torch 2.13 has them on a Mac, and the layouts that it has not."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patcher import simulator
from patcher.simulator import Device
from patcher.simulator.wheels import records
from tests.simulator.conftest import TORCH

HALVES = [torch.float16, torch.bfloat16]


def matrix(device: str) -> Tensor:
    """A 3 x 4 matrix with three entries, one of them given twice."""
    indices = torch.tensor([[0, 2, 1, 0], [1, 3, 0, 1]], device=device)
    values = torch.tensor([1.0, -2.0, 3.0, 4.0], device=device)
    return torch.sparse_coo_tensor(indices, values, (3, 4), device=device)


def in_place(x: Tensor) -> Tensor:
    y = x.coalesce().clone()
    y.sin_()
    y.mul_(2).add_(x)
    return y.coalesce()


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x,
        lambda x: x.coalesce().values(),
        lambda x: x.coalesce().indices(),
        lambda x: x._values(),
        lambda x: x.to_dense(),
        lambda x: x.to_dense().to_sparse(),
        lambda x: x.coalesce() + x.coalesce(),
        lambda x: x.to_dense() + x,
        lambda x: x * 3,
        lambda x: x.coalesce().tanh(),
        lambda x: x.neg().abs().sqrt(),
        lambda x: torch.sparse.mm(x, x.to_dense().t()),
        lambda x: torch.sparse.addmm(x.to_dense() @ x.to_dense().t(), x, x.to_dense().t()),
        lambda x: torch.sparse.sum(x, 0),
        lambda x: torch.sparse.softmax(x, 1),
        lambda x: torch.cat([x, x]),
        lambda x: x.transpose(0, 1),
        lambda x: x.index_select(0, torch.tensor([2, 0], device=x.device)),
        lambda x: x.half().float(),
        lambda x: x.to_dense().sparse_mask(x.coalesce()),
        in_place,
    ],
    ids=range(21),
)
def test_results_are_those_of_the_cpu(function: Callable[[Tensor], Tensor]) -> None:
    """Layout, device, entries and whether they are coalesced."""
    result, expected = function(matrix("mps")), function(matrix("cpu"))
    assert result.device.type == "mps" and result.layout == expected.layout and result.dtype == expected.dtype
    if expected.is_sparse:
        assert result.is_coalesced() == expected.is_coalesced() and result._nnz() == expected._nnz()
        assert result._indices().device.type == "mps" and result.sparse_dim() == expected.sparse_dim()
    dense = expected.to_dense() if expected.is_sparse else expected
    assert torch.equal((result.to_dense() if result.is_sparse else result).cpu(), dense)


@pytest.mark.parametrize(
    ("function", "dtypes"),
    [
        (lambda x: x + x, [torch.float16, torch.bool]),
        (lambda x: x - x, [torch.float16]),
        (lambda x: torch.sparse.mm(x, x.t()), [*HALVES, torch.int64, torch.uint8, torch.bool]),
        (lambda x: torch.sparse.softmax(x, 1), HALVES),
        (lambda x: torch.sparse.log_softmax(x, 0), HALVES),
        (lambda x: x.coalesce().floor(), [torch.bool]),
    ],
    ids=["add", "sub", "matmul", "softmax", "log_softmax", "floor"],
)
def test_dtypes_that_only_a_mac_has(function: Callable[[Tensor], Tensor], dtypes: list[torch.dtype]) -> None:
    """Where the CPU has no sparse kernel, results are those in float64, rounded."""
    for dtype in dtypes:
        result = function(matrix("mps").to(dtype))
        assert result.dtype == dtype and result.device.type == "mps"
        with pytest.raises(NotImplementedError, match="not implemented for"):
            function(matrix("cpu").to(dtype))
        assert torch.equal(result.to_dense().cpu(), function(matrix("cpu").double()).to_dense().to(dtype))


def test_a_sum_is_coalesced(device: Device) -> None:
    """So gradients that are added up do not grow: the CPU joins the entries of tensors that are not coalesced."""
    x = matrix("mps")
    total = x + x
    assert total.is_coalesced() and total._nnz() == 3 and torch.equal(total.to_dense(), 2 * x.to_dense())
    assert (matrix("cpu") + matrix("cpu"))._nnz() > 3
    x += x
    assert x.is_coalesced() and torch.equal(x.to_dense(), total.to_dense())


REFUSED: dict[str, tuple[str, Callable[[Tensor], object]]] = {
    "dense factor that would broadcast": (
        "mul(dense, sparse): sizes must match exactly (no broadcasting): [4] vs [3, 4]",
        lambda x: x * torch.ones(4, device="mps"),
    ),
    "dense factor of integers": (
        "Failed to create function state object for: dense_sparse_mul_kernel_int",
        lambda x: torch.ones(3, 4, dtype=torch.int32, device="mps") * x.int(),
    ),
    "sparse factors of bool": (
        "Failed to create function state object for: fused_gather_mul_kernel_bool",
        lambda x: x.bool() * x.bool(),
    ),
    "factors with other sparse dimensions": (
        "mul(sparse, sparse): must have same sparse_dim, got 2 vs 1",
        lambda x: x * x.to_dense().to_sparse(1),
    ),
    "factors of other sizes": ("mul(sparse, sparse): sparse sizes must match exactly.", lambda x: x * x.t()),
    "summands of other sizes": (
        "expected 'self' and 'other' to have same size, but [3, 4] != [4, 3]",
        lambda x: x + x.t(),
    ),
    "product with a matrix of other height": (
        "addmm: dense (mat2) dim0 must be 4, got 3",
        lambda x: x @ torch.ones(3, 2, device="mps"),
    ),
    "product with a vector in bool": (
        "Failed to create function state object for: spmm_addmm_coo_bool",
        lambda x: x.bool().mv(torch.ones(4, dtype=torch.bool, device="mps")),
    ),
    "product in bool": (
        "Failed to create function state object for: spmm_addmm_coo_bool",
        lambda x: x.bool() @ torch.ones(4, 2, dtype=torch.bool, device="mps"),
    ),
    "sparse product of two dtypes": (
        "sparse_sparse_matmul_mps: mat1 dtype Float does not match mat2 dtype Half",
        lambda x: torch.sparse.mm(x, x.t().half()),
    ),
    "batched product in half precision": (
        "bmm of a sparse tensor of Half: on a Mac the kernel reads float32 copies",
        lambda x: torch.bmm(torch.stack([x.half()]), torch.ones(1, 4, 2, dtype=torch.half, device="mps")),
    ),
    "selection out of bounds": (
        "index_select(): index out of bounds for dimension with size 3",
        lambda x: x.index_select(0, torch.tensor([3], device="mps")),
    ),
    "softmax of integers": (
        "Failed to create function state object for: softmax_sparse_forward_long",
        lambda x: torch.sparse.softmax(x.long(), 1),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_sparse_kernels_refuse(device: Device, case: str) -> None:
    """In the words of SparseMPSTensorMath.mm, and counted."""
    words, call = REFUSED[case]
    device.rules.reset()
    with pytest.raises(RuntimeError, match=re.escape(words)):
        call(matrix("mps"))
    assert device.rules.refused == {"sparse-kernel": 1}


NO_LONGER_SAID = {"2.15": ["sparse_sparse_matmul_mps: both inputs must be 2D matrices"]}
"""Words that a release has dropped: what it says of them instead is not in its kernels, and not known."""


@pytest.mark.parametrize("release", records.releases())
def test_the_words_of_sparse_kernels_are_in_the_wheel(release: str) -> None:
    """Each literal of native/sparse_checks.cpp that the Mac says, in each release."""
    sources = Path(simulator.__file__).parent / "native" / "sparse_checks.cpp"
    literals = re.findall(r'"([a-z_]+(?:\([^"]*\))?: [^"]{12,})"', sources.read_text())
    said = "\n".join(records.record(release).sections["refusals"])
    assert len(literals) > 12
    missing = [each for each in literals if each not in said and "Mac" not in each]
    assert missing == NO_LONGER_SAID.get(release, [])


def test_a_norm_of_a_sparse_tensor() -> None:
    """torch 2.14 has it on a Mac; over all elements it is that of the values."""
    if records.record(TORCH).with_kernel("SparseMPS") >= {"linalg_vector_norm"}:
        assert torch.equal(torch.linalg.vector_norm(matrix("mps"), 1).cpu(), torch.tensor(10.0))
    with pytest.raises(NotImplementedError, match=r"linalg.?vector_norm"):
        torch.linalg.vector_norm(matrix("mps"), 2, 0)


def test_they_move_print_and_are_saved(tmp_path: object) -> None:
    """CPU to mps and back, `repr`, `torch.save`, `zero_`, sizes."""
    x = matrix("mps")
    assert x.cpu().layout == torch.sparse_coo and torch.equal(x.cpu().to_dense(), matrix("cpu").to_dense())
    assert torch.equal(matrix("cpu").to("mps").to_dense(), x.to_dense())
    assert "device='mps:0'" in repr(x) and x.is_mps and x.is_sparse
    torch.save(x, f"{tmp_path}/x.pt")
    loaded = torch.load(f"{tmp_path}/x.pt")
    assert loaded.device.type == "mps" and torch.equal(loaded.to_dense(), x.to_dense())
    assert x.zero_()._nnz() == 0


def test_sparse_gradients_train_an_embedding(device: Device) -> None:
    """`nn.Embedding(sparse=True)` gives a sparse gradient that SGD applies; nothing stays allocated."""

    def train(where: str) -> Tensor:
        torch.manual_seed(0)
        table = nn.Embedding(7, 3, sparse=True).to(where)
        optimizer = torch.optim.SGD(table.parameters(), lr=0.5)
        for _ in range(3):
            optimizer.zero_grad()
            table(torch.tensor([1, 4, 1], device=where)).square().sum().backward()
            assert table.weight.grad is not None and table.weight.grad.is_sparse
            optimizer.step()
        return table.weight.detach().cpu()

    gc.collect()
    before = device.memory().blocks
    assert torch.equal(train("mps"), train("cpu"))
    assert device.memory().blocks == before


def test_gradients_through_a_sparse_product() -> None:
    """Both sides of `torch.sparse.mm` get their gradient."""
    gradients = []
    for where in ("mps", "cpu"):
        sparse, dense = matrix(where).coalesce().requires_grad_(), torch.ones(4, 2, device=where, requires_grad=True)
        F.relu(torch.sparse.mm(sparse, dense)).sum().backward()
        assert sparse.grad is not None and dense.grad is not None and sparse.grad.is_sparse
        gradients.append((sparse.grad.to_dense().cpu(), dense.grad.cpu()))
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x.cpu().to_sparse_csr().to("mps"),
        lambda x: torch.sparse_csr_tensor([0, 1], [0], [1.0], (1, 1), device="mps"),
        lambda x: torch.quantize_per_tensor(x.cpu(), 0.1, 0, torch.qint8).to("mps"),
        lambda x: x.to_mkldnn(),
    ],
    ids=["csr moved", "csr", "quantized", "mkldnn"],
)
def test_other_layouts_are_refused(make: Callable[[Tensor], object]) -> None:
    """What torch 2.13 has no tensors of on mps."""
    with pytest.raises((NotImplementedError, RuntimeError, TypeError)):
        make(torch.ones(2, 2, device="mps"))


def test_nested_tensors_are_jagged() -> None:
    """The jagged layout, made of dense tensors, works; the strided one has no mps storage, as in torch's own check."""
    rows = [torch.ones(2, 3, device="mps"), torch.ones(1, 3, device="mps")]
    nested = torch.nested.nested_tensor(rows, layout=torch.jagged, requires_grad=True)
    (nested * 2).values().sum().backward()
    assert nested.grad is not None and nested.grad.values().tolist() == [[2.0] * 3] * 3
    with pytest.raises(RuntimeError, match="NestedTensorImpl storage must be"):
        torch.nested.nested_tensor(rows)
