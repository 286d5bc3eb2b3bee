"""Sparse COO tensors on the simulated device, as torch 2.13 has them on a Mac, and the layouts that it has not."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patcher.simulator import Device


def matrix(device: str) -> Tensor:
    """A 3 x 4 matrix with three entries, one of them given twice."""
    indices = torch.tensor([[0, 2, 1, 0], [1, 3, 0, 1]], device=device)
    values = torch.tensor([1.0, -2.0, 3.0, 4.0], device=device)
    return torch.sparse_coo_tensor(indices, values, (3, 4), device=device)


def in_place(x: Tensor) -> Tensor:
    y = x.coalesce().clone()
    y.sin_()
    y.mul_(2).add_(x)
    return y


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x,
        lambda x: x.coalesce().values(),
        lambda x: x.coalesce().indices(),
        lambda x: x._values(),
        lambda x: x.to_dense(),
        lambda x: x.to_dense().to_sparse(),
        lambda x: x + x,
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
