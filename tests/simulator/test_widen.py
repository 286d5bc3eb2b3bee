"""Operators that a Mac has for a dtype and the CPU has not: float32, rounded."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.simulator.conftest import TORCH

X = torch.linspace(0.1, 2, 12).view(3, 4)

HALF: dict[str, Callable[[Tensor], Tensor]] = {
    "cdist": lambda x: torch.cdist(x, x.flip(0)),
    "avg_pool3d": lambda x: torch.nn.functional.avg_pool3d(x[None, None, None], (1, 2, 2)),
    "bessel": torch.special.bessel_j0,
    "polynomial": lambda x: torch.special.hermite_polynomial_h(x, 3),
    "out": lambda x: torch.special.bessel_j1(x, out=torch.empty(0, dtype=x.dtype, device=x.device)),
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", HALF)
def test_half_precision_is_float32_rounded(name: str, dtype: torch.dtype) -> None:
    """The CPU refuses these in half precision; Metal computes them in float32."""
    x = X.to(dtype)
    with pytest.raises(NotImplementedError):
        HALF[name](x)
    result = HALF[name](x.to("mps"))
    assert result.dtype == dtype and result.device.type == "mps"
    assert torch.equal(result.cpu(), HALF[name](x.float()).to(dtype))


def test_polar_makes_half_precision_complex_numbers() -> None:
    """float16 makes complex32."""
    result = torch.polar(X.half().to("mps"), X.half().to("mps"))
    assert result.dtype == torch.complex32
    assert torch.equal(
        result.cpu().to(torch.complex64),
        torch.polar(X.half().float(), X.half().float()).to(torch.complex32).to(torch.complex64),
    )


def test_bool_stays_bool() -> None:
    """Also where the operator writes into its argument."""
    x = torch.tensor([True, False], device="mps")
    assert x.ceil().tolist() == [True, False] and x.ceil().dtype == torch.bool
    assert x.floor_() is x and x.tolist() == [True, False]


@pytest.mark.skipif(TORCH == "2.13", reason="torch 2.13 refuses it")
def test_relu_of_bool_from_2_14_on() -> None:
    """Nothing is below zero."""
    x = torch.tensor([True, False], device="mps")
    assert torch.relu(x).tolist() == [True, False] and torch.relu(x).dtype == torch.bool


@pytest.mark.parametrize("dtypes", [(torch.float16, torch.float32), (torch.float32, torch.float16)])
def test_two_dtypes_stay_refused(dtypes: tuple[torch.dtype, torch.dtype]) -> None:
    """Copies in one wider dtype would hide that a call is wrong; the words are torch's, of the dtypes given."""
    names = [{torch.float16: "Half", torch.float32: "Float"}[dtype] for dtype in dtypes]
    for device in ("cpu", "mps"):
        sparse, dense = torch.eye(3, dtype=dtypes[0]).to_sparse(), torch.eye(3, dtype=dtypes[1])
        with pytest.raises(RuntimeError, match="expected scalar type {} but found {}".format(*names)):
            torch.mm(sparse.to(device), dense.to(device))


def test_what_the_cpu_can_do_is_left_to_it() -> None:
    """A bool to an integer power is an integer, as on the CPU."""
    result = torch.tensor([True, False], device="mps") ** torch.tensor([2, 3], device="mps")
    assert result.dtype == torch.int64 and result.tolist() == [1, 0]


def test_gradients_are_half_precision_too() -> None:
    """Backward operators are treated alike."""
    x = X.half().to("mps").requires_grad_()
    torch.cdist(x, x.detach() + 1).sum().backward()
    assert x.grad is not None and x.grad.dtype == torch.float16
    reference = X.half().float().requires_grad_()
    torch.cdist(reference, (X.half() + 1).float()).sum().backward()
    assert reference.grad is not None
    # The distances that the gradient divides by were rounded to half precision: 2**-11 relative each.
    torch.testing.assert_close(x.grad.cpu().float(), reference.grad, rtol=2e-3, atol=2e-3)
