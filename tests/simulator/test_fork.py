"""A process that was forked from one with an mps device: it cannot use the device, and is whole otherwise."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch
from torch.utils.data import DataLoader, Dataset


def in_forked_child(work: Callable[[], object]) -> str:
    """What `work` returns or raises in a forked child of this process, as text."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = str(work())
        except BaseException as error:  # noqa: BLE001 - the parent looks at it
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode()[:4000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


X = torch.arange(3.0)

TOUCHES: dict[str, Callable[[torch.Tensor], object]] = {
    "empty": lambda x: torch.empty(2, device="mps"),
    "operator": lambda x: x + 1,
    "to the CPU": lambda x: x.cpu(),
    "item": lambda x: x[0].item(),
    "from the CPU": lambda x: torch.ones(2).to("mps"),
    "synchronize": lambda x: torch.mps.synchronize(),
    "accelerator": lambda x: torch.accelerator.synchronize(),
    "event": lambda x: torch.mps.Event().record(),
    "host alias": lambda x: torch.mps._host_alias_storage(x.untyped_storage()),
}


def test_using_mps_in_a_forked_child_is_refused() -> None:
    """Where a Mac hangs or dies, the error says so and names the cure."""
    x = X.to("mps")
    for name, touch in TOUCHES.items():
        said = in_forked_child(lambda touch=touch: touch(x))  # type: ignore[misc]
        assert said.startswith("RuntimeError: the mps device was used in a forked child"), (name, said)
        assert "spawn" in said and "A Mac hangs" in said


def test_a_forked_child_that_leaves_mps_alone_is_unharmed() -> None:
    """CPU work, seeds and releasing inherited tensors work in the child; the parent does not notice."""
    inherited = [X.to("mps")]

    def work() -> tuple[object, ...]:
        torch.manual_seed(0)
        shape = tuple(inherited[0][1:].shape)
        inherited.clear()
        return torch.mps._is_in_bad_fork(), (X * 3).tolist(), shape, torch.rand(1).item()

    torch.manual_seed(0)
    assert in_forked_child(work) == str((True, [0.0, 3.0, 6.0], (2,), torch.rand(1).item()))
    assert not torch.mps._is_in_bad_fork()
    assert (inherited[0] + 1).tolist() == [1.0, 2.0, 3.0]


class Rows(Dataset[torch.Tensor]):
    """Six rows on one device."""

    def __init__(self, device: str) -> None:
        self.device = device

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((2,), float(index), device=self.device)


def test_forked_data_loader_workers() -> None:
    """Workers that make CPU tensors work; one that makes mps tensors hands the error to the parent."""
    loader: DataLoader[torch.Tensor] = DataLoader(Rows("cpu"), 2, num_workers=2, multiprocessing_context="fork")
    assert torch.cat([batch.to("mps") for batch in loader])[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(RuntimeError, match="used in a forked child process") as caught:
        next(iter(DataLoader(Rows("mps"), 2, num_workers=1, multiprocessing_context="fork")))
    assert "DataLoader worker process 0" in str(caught.value)
