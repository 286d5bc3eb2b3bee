"""Linear layers are right for every shape, and do not abort the process."""

from __future__ import annotations

from functools import partial

from patcher.changes.torch import DISTRIBUTION, REVIEWED, issues, native
from patcher.changes.torch.matmul import repeats_wrongly
from patcher.engine.model import Kernel
from patcher.macs.machine import Machine
from patcher.training.rules import torch_may_be_before

_kernel = partial(
    Kernel,
    distribution=DISTRIBUTION,
    reviewed=REVIEWED,
    dispatch_key="MPS",
    wraps=True,
    needed_for="linear layers and their gradients, which are wrong without a word",
)


def _forward_is_right(machine: Machine) -> str | None:
    if _old_chip(machine) or torch_may_be_before(machine, 2, 14) or machine.macos is None or machine.macos >= (27, 0):
        return None
    return "torch 2.14 flattens its input itself, and this chip adds long sums up rightly"


def _backward_is_right(machine: Machine) -> str | None:
    if not torch_may_be_before(machine, 2, 14):
        return "torch 2.14 computes it by mm, which has a guard"
    if _old_chip(machine) or repeats_wrongly(machine):
        return None
    return f"M{machine.generation} adds long sums up rightly"


def _old_chip(machine: Machine) -> bool:
    """M1, M2, or one that is not known."""
    return machine.generation is None or machine.generation < 3


CHANGES = (
    _kernel(
        op="aten::linear",
        replacement="patcher.replacements.torch.linear:linear",
        skip=_forward_is_right,
        why="torch's kernel writes row 65536 of a batch to row 0, forgets the bias of single rows (M1), aborts for a "
        "transposed bf16 weight (macOS 27), and adds long sums up wrongly (M1, M2)",
        upstream=native(
            "aten/src/ATen/native/mps/operations/Linear.mm",
            "_mps_linear",
            issues(189495, 188438, 197796, 180776, 177116),
        ),
        until="the oldest torch that is supported is 2.14, and issue 197796 is closed",
    ),
    _kernel(
        op="aten::linear_backward",
        replacement="patcher.replacements.torch.linear:linear_backward",
        skip=_backward_is_right,
        why="on M1 and M2 the gradients of a layer with 32767 or more outputs (a vocabulary) or tokens add what lies "
        "in memory behind the operands, and on macOS 27 the gradient of a sum, which repeats a row, becomes zeros",
        upstream=native(
            "aten/src/ATen/native/mps/operations/Linear.mm",
            "_mps_linear_backward_weights",
            issues(177116, 183535, 180201),
        ),
        until="the oldest torch that is supported is 2.14",
    ),
)
