"""What a Mac refuses is refused, in its words."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

FLOAT64 = (
    "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64. "
    "Please use float32 instead."
)
DOUBLE: dict[str, Callable[[], object]] = {
    "factory": lambda: torch.zeros(2, dtype=torch.float64, device="mps"),
    "tensor": lambda: torch.tensor([1.0], dtype=torch.float64, device="mps"),
    "to dtype": lambda: torch.zeros(2, device="mps").to(torch.float64),
    "double": lambda: torch.zeros(2, device="mps").double(),
    "to device": lambda: torch.zeros(2, dtype=torch.float64).to("mps"),
    "module": lambda: torch.nn.Linear(2, 2).double().to("mps"),
    "result": lambda: torch.zeros(2, device="mps").sum(dtype=torch.float64),
    "empty_like": lambda: torch.empty_like(torch.zeros(2, device="mps"), dtype=torch.float64),
    "range": lambda: torch.arange(3, dtype=torch.float64, device="mps"),
}


@pytest.mark.parametrize("make", DOUBLE.values(), ids=DOUBLE.keys())
def test_float64_is_refused_with_the_text_of_a_mac(make: Callable[[], object]) -> None:
    """However a float64 tensor would come to be on mps, it raises TypeError."""
    with pytest.raises(TypeError) as caught:
        make()
    assert str(caught.value).startswith(FLOAT64)


def test_complex128_is_refused() -> None:
    """complex128 holds float64."""
    with pytest.raises(TypeError, match="Trying to convert ComplexDouble to the MPS backend"):
        torch.zeros(2, dtype=torch.complex128, device="mps")


MIXED: dict[str, Callable[[torch.Tensor, torch.Tensor], object]] = {
    "add": lambda a, b: a + b,
    "matmul": lambda a, b: a @ b,
    "in place": lambda a, b: a.add_(b),
    "out": lambda a, b: torch.add(a, a, out=b),
    "list": lambda a, b: torch.cat([a, b]),
    "linear": lambda a, b: torch.nn.functional.linear(a, b),
    "foreach": lambda a, b: torch._foreach_add([a], [b]),
    "embedding": lambda a, b: torch.nn.functional.embedding(torch.tensor([0]), a),
}


@pytest.mark.parametrize("mix", MIXED.values(), ids=MIXED.keys())
def test_tensors_on_two_devices_are_refused(mix: Callable[[torch.Tensor, torch.Tensor], object]) -> None:
    """torch's usual text names both devices."""
    with pytest.raises(RuntimeError, match=r"Expected all tensors to be on the same device.*(mps:0.*cpu|cpu.*mps:0)"):
        mix(torch.ones(2, 2, device="mps"), torch.ones(2, 2))


def test_cpu_scalars_and_cpu_indices_are_allowed() -> None:
    """Zero-dimensional CPU tensors mix with mps, and CPU indices select from it, as on every accelerator."""
    x = torch.arange(4.0, device="mps")
    assert (x + torch.tensor(1.0)).tolist() == [1.0, 2.0, 3.0, 4.0]
    assert (torch.tensor(2.0) * x).device.type == "mps"
    assert x.mul_(torch.tensor(2.0)).tolist() == [0.0, 2.0, 4.0, 6.0]
    assert x[torch.tensor([3, 0])].tolist() == [6.0, 0.0]
    x[torch.tensor([1])] = 9.0
    assert x.tolist() == [0.0, 9.0, 4.0, 6.0]


def test_there_is_one_device() -> None:
    """`mps:1` does not exist."""
    with pytest.raises(RuntimeError, match="mps:1"):
        torch.zeros(2, device="mps:1")


def test_operator_without_any_kernel_is_named() -> None:
    """An operator that neither the Mac nor the CPU has raises the Mac's NotImplementedError."""
    x = torch.ones(2, 3, 4, 8, device="mps")
    with pytest.raises(NotImplementedError, match="is not currently implemented for the MPS device"):
        torch.ops.aten._scaled_dot_product_cudnn_attention(x, x, x, None, False)


def test_storage_of_another_device_is_refused() -> None:
    """`set_` cannot move a tensor to another device."""
    with pytest.raises(RuntimeError, match=r"devices must match"):
        torch.empty(0, device="mps").set_(torch.ones(2).untyped_storage())


def test_no_numpy_without_a_copy() -> None:
    """mps memory is not shown to numpy."""
    with pytest.raises(TypeError, match="can't convert mps:0 device type tensor to numpy"):
        torch.ones(2, device="mps").numpy()
