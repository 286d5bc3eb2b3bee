"""A variant against the torch variant on the CPU, forward and backward, on an op's samples; and its time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from patcher.ops.variants.names import TORCH
from patcher.ops.variants.tolerance import difference

Tensors = Mapping[str, Tensor]

TURNS, RUNS = 3, 8
"""The time of a run is the least mean of RUNS runs, of TURNS such means."""


BESIDE = 999.0
"""What lies between rows: seen in every sum, and other than what an op would write there."""


@dataclass(frozen=True)
class Sample:
    """Attributes:
    name: what it is.
    tensors: on the CPU.
    run: an op's forward and backward, by the module that has its functions: what they write, by name. It changes none
        of the tensors.
    length: of the longest sum.
    steps: how many roundings to a 16-bit type, one after the other, may go another way for one number.
    exponent: the largest number of which exp is taken after a rounding.
    """

    name: str
    tensors: Tensors
    run: Callable[[Any, Tensors], dict[str, Tensor]]
    length: int
    steps: float = 1
    exponent: float = 0


def functions(variant: str, op: str) -> Any:
    """The module with the functions of an op's variant."""
    return import_module(f"patcher.ops.{op}" if variant == TORCH else f"patcher.ops.{variant}.{op}")


def wrong(variant: str, op: str, dtype: torch.dtype) -> str:
    """What a variant does wrong in ``dtype``, by the name of the sample; empty where nothing."""
    for sample in _samples(op).checked(dtype):
        right = sample.run(functions(TORCH, op), sample.tensors)
        found = sample.run(functions(variant, op), on_mps(sample.tensors))
        for name, expected in right.items():
            bounds = {"length": sample.length, "steps": sample.steps, "exponent": sample.exponent}
            told = difference(found[name].cpu(), expected, **bounds)
            if told:
                return f"{name} of {sample.name}: {told}"
    return ""


def seconds(variant: str, op: str, dtype: torch.dtype) -> dict[str, float]:
    """How long a variant takes on mps, by the name of the sample."""
    return {sample.name: _least(variant, op, sample) for sample in _samples(op).timed(dtype)}


def _least(variant: str, op: str, sample: Sample) -> float:
    tensors, module = on_mps(sample.tensors), functions(variant, op)
    times = []
    for _ in range(TURNS + 1):  # the first one finds nothing ready
        torch.mps.synchronize()
        began = time.perf_counter()
        for _ in range(RUNS):
            sample.run(module, tensors)
        torch.mps.synchronize()
        times.append((time.perf_counter() - began) / RUNS)
    return min(times[1:])


def _samples(op: str) -> Any:
    return import_module(f"patcher.ops.trials.{op}")


def on_mps(tensors: Tensors) -> dict[str, Tensor]:
    """The same on mps, with the same strides and offsets, and what lies between the numbers."""
    return {name: _moved(tensor, "mps") for name, tensor in tensors.items()}


def copied(tensor: Tensor) -> Tensor:
    """A copy with the same strides and offset, and what lies between the numbers."""
    return _placed(whole(tensor).clone(), tensor)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor's memory, in one dimension."""
    return tensor.as_strided((tensor.untyped_storage().nbytes() // tensor.element_size(),), (1,), 0)


def _moved(tensor: Tensor, device: str) -> Tensor:
    return _placed(whole(tensor).to(device), tensor)


def _placed(memory: Tensor, like: Tensor) -> Tensor:
    return memory.as_strided(like.shape, like.stride(), like.storage_offset())


def strided(tensor: Tensor, *, gap: int = 3, offset: int = 1) -> Tensor:
    """The same rows, with `BESIDE` ``gap`` times behind each, and ``offset`` times before the first."""
    rows, columns = tensor.shape
    stride = columns + gap
    whole = torch.full((offset + rows * stride,), BESIDE, dtype=tensor.dtype, device="cpu")
    view = whole.as_strided((rows, columns), (stride, 1), offset)
    view.copy_(tensor)
    return view


def numbers(seed: int) -> Callable[..., Tensor]:
    """Draws fp32 numbers of a normal distribution on the CPU: ``numbers(1)(3, 4)``."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
