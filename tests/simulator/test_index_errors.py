"""Indices out of bounds are told when the host waits for the GPU, as on a Mac, in torch's own words."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from patcher.simulator import Device


def at(*places: int) -> Tensor:
    return torch.tensor(places, device="mps")


def zeros(*shape: int) -> Tensor:
    return torch.zeros(*shape, device="mps")


def put() -> Tensor:
    x = zeros(3)
    x[at(0, 3)] = 1.0
    return x


BEYOND: dict[str, tuple[Callable[[], Tensor], str]] = {
    # the example of pytorch pull request 166615, with what it raises
    "index": (
        lambda: torch.rand(10, 1, 10, device="mps")[:, [1]],
        "index 1 is out of bounds for dimension [01] with size 1",
    ),
    "index_put": (put, "index 3 is out of bounds for dimension 0 with size 3"),
    "gather": (
        lambda: zeros(2, 3).gather(1, at(0, 3).view(2, 1)),
        "index 3 is out of bounds for dimension 1 with size 3",
    ),
    "scatter": (
        lambda: zeros(3).scatter(0, at(1, 5), zeros(2)),
        "index 5 is out of bounds for dimension 0 with size 3",
    ),
    "scatter_add_": (
        lambda: zeros(3).scatter_add_(0, at(-1), zeros(1)),
        "index -1 is out of bounds for dimension 0 with size 3",
    ),
    "one_hot": (lambda: F.one_hot(at(0, 7), 4), "index 7 is out of bounds for dimension 1 with size 4"),
    # the numbers of pytorch issue 189971
    "embedding_bag": (lambda: F.embedding_bag(at(6), zeros(5, 3), at(0)), "Index 0 is out of bounds: 6, range 0 to 5"),
}
WAITS: dict[str, Callable[[Tensor], object]] = {
    "synchronize": lambda x: torch.mps.synchronize(),
    "item": lambda x: x.flatten()[0].item(),
    "cpu": lambda x: x.cpu(),
    "tolist": lambda x: x.tolist(),
}


@pytest.mark.parametrize("name", BEYOND)
def test_an_index_out_of_bounds_is_told_at_the_next_wait(name: str, device: Device) -> None:
    """The call returns; the wait raises once."""
    call, message = BEYOND[name]
    found = call()
    assert found.device.type == "mps"
    with pytest.raises(torch.AcceleratorError, match=message):
        torch.mps.synchronize()
    torch.mps.synchronize()


@pytest.mark.parametrize("wait", WAITS)
def test_whatever_waits_tells(wait: str, device: Device) -> None:
    """Of two errors the first; what does not wait says nothing."""
    x = zeros(3)[at(5)] + zeros(2)[at(4)]
    with pytest.raises(torch.AcceleratorError, match="index 5"):
        WAITS[wait](x)
    assert x.cpu().shape == (1,)


def test_what_is_right_and_what_is_no_index_is_told_as_ever(device: Device) -> None:
    """Negative indices count from the end, masks stay masks, and other errors are raised at once."""
    x = torch.arange(6.0, device="mps").view(2, 3)
    assert x[at(-1), at(-3)].tolist() == [3.0]
    assert x[x > 4].tolist() == [5.0]
    with pytest.raises(IndexError, match="too many indices"):
        x[at(0), at(0), at(0)]
    with pytest.raises(RuntimeError, match="same number of dimensions"):
        x.gather(1, at(0))
    torch.mps.synchronize()
