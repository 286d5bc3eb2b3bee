"""A script that runs out of memory on a simulated M1 of 8 GB, in the ways of CUDA scripts; prints what it caught.

python -m tests.e2e.out_of_memory
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from typing import Any

from patcher import patch_for_mac

HANDLE = patch_for_mac(simulate="M1 8GB")

import cloudpickle
import dill
import torch
from accelerate.utils import find_executable_batch_size
from datasets.fingerprint import Hasher

GIB = 2**28
"""Values of fp32 in one GiB."""


class Doubled(torch.autograd.Function):
    """Needs nothing in the forward, and 12 GiB in the backward."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        held = [torch.ones(GIB, device="mps") for _ in range(12)]
        return grad * 2 * held[0][0]


def too_many() -> None:
    held = [torch.empty(GIB, device="cuda") for _ in range(12)]
    assert not held


def in_forward() -> None:
    held = [torch.nn.ReLU()(torch.ones(GIB, device="cuda")) for _ in range(12)]
    assert not held


def in_backward() -> None:
    Doubled.apply(torch.ones(1, device="cuda", requires_grad=True)).sum().backward()


def too_large() -> None:
    torch.empty(64 * GIB, device="cuda")


def again() -> None:
    try:
        too_many()
    except RuntimeError as error:
        raise torch.cuda.OutOfMemoryError("the step did not fit: out of memory") from error


def caught_by_torch(step: Callable[[], None]) -> bool:
    try:
        step()
    except torch.OutOfMemoryError as error:
        return isinstance(error, torch.OutOfMemoryError) and "out of memory" in str(error)
    return False


def caught_by_cuda(step: Callable[[], None]) -> str:
    try:
        step()
    except (ValueError, torch.cuda.OutOfMemoryError) as error:
        assert isinstance(error, torch.cuda.OutOfMemoryError)
        return str(error)
    return ""


def others_pass() -> list[str]:
    """Errors that are none of memory are not caught, also while an earlier one is being handled."""
    passed = []
    for wrong in (lambda: torch.ones(2, 3, device="cuda") @ torch.ones(2, 3, device="cuda"), lambda: 1 / 0):
        try:
            try:
                wrong()
            except torch.cuda.OutOfMemoryError:
                continue
        except (RuntimeError, ZeroDivisionError) as error:
            passed.append(type(error).__name__)
    try:
        too_many()
    except torch.cuda.OutOfMemoryError:
        try:
            raise RuntimeError("something else")
        except torch.OutOfMemoryError:
            passed.append("caught")
        except RuntimeError:
            passed.append("passed")
    try:
        try:
            raise RuntimeError("the wrong shape")
        except RuntimeError as error:
            raise error from error
    except torch.cuda.OutOfMemoryError:
        passed.append("caught")
    except RuntimeError:
        passed.append("its own cause")
    return passed


def three(count: int) -> float:
    return torch.ones(count).sum().item()


def pickled() -> list[float]:
    """What refers to torch can be sent to another process, and hashed for a cache, as without the patch."""
    assert Hasher.hash(three) == Hasher.hash(three)
    return [
        pickle.loads(cloudpickle.dumps(three))(3),
        dill.loads(dill.dumps(three, recurse=True))(3),
        pickle.loads(pickle.dumps(torch)) is torch,
    ]


@find_executable_batch_size(starting_batch_size=64)
def batch(batch_size: int) -> int:
    torch.empty(batch_size * GIB, device="cuda")
    return batch_size


def main() -> None:
    own = torch._C.OutOfMemoryError
    steps = (too_many, in_forward, in_backward, too_large, again)
    found = {step.__name__: [caught_by_torch(step), caught_by_cuda(step)[:24]] for step in steps}
    others, halved = others_pass(), batch()
    sent = pickled()
    outside = torch.OutOfMemoryError is torch.cuda.OutOfMemoryError is own
    HANDLE.undo()
    undone = type(torch) is type(torch.cuda) is type(json) and torch.OutOfMemoryError is own
    print(json.dumps({**found, "others": others, "batch": halved, "sent": sent, "outside": outside, "undone": undone}))


if __name__ == "__main__":
    main()
