"""``torch.cuda.is_available()`` in a script's own code is True: the commonest line no longer trains on the CPU."""

from __future__ import annotations

from functools import partial

from patcher.changes.torch import DISTRIBUTION, REVIEWED, native, source
from patcher.engine.model import AnyChange, Patch
from patcher.environment import cuda_answers
from patcher.macs.machine import Machine


def where_the_user_says_no(machine: Machine) -> str | None:
    """Why nothing speaks for CUDA: the switch; None where it does."""
    return None if cuda_answers() else "PATCHER_CUDA_ANSWERS=0"


_patch = partial(Patch, distribution=DISTRIBUTION, reviewed=REVIEWED, needed_for=None, skip=where_the_user_says_no)

CHANGES: tuple[AnyChange, ...] = (
    *(
        _patch(
            target=target,
            replacement=f"patcher.replacements.torch.cuda_availability:{name}",
            expects="()",
            why='device = "cuda" if torch.cuda.is_available() else "cpu" trains on the CPU without a word',
            upstream=source("torch/cuda/__init__.py", "is_available"),
            until="torch.cuda.is_available() is True for mps where there is no CUDA",
        )
        for target, name in (
            ("torch.cuda:is_available", "is_available"),
            ("torch.cuda:device_count", "device_count"),
            ("torch.cuda:is_initialized", "is_initialized"),
            ("torch.backends.cuda:is_built", "is_built"),
        )
    ),
    _patch(
        target="torch:Tensor.is_cuda",
        replacement="patcher.replacements.torch.cuda_availability:is_cuda",
        why="a script that asks next(model.parameters()).is_cuda leaves its batches on the CPU",
        upstream=native("torch/csrc/autograd/python_variable.cpp", "THPVariable_is_cuda"),
        until="torch.Tensor.is_cuda is True for mps where there is no CUDA",
    ),
    _patch(
        target="torch._dynamo.variables.tensor:TensorVariable.method_attr_is_cuda",
        replacement="patcher.replacements.torch.cuda_availability:method_attr_is_cuda",
        expects="(self, tx)",
        why="torch.compile answers x.is_cuda itself, from the tensor's device",
        upstream=source("torch/_dynamo/variables/tensor.py", "TensorVariable.method_attr_is_cuda"),
        until="torch.Tensor.is_cuda is True for mps where there is no CUDA",
    ),
)
