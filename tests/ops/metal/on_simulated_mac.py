"""The Metal variant of an op on the simulated Mac: ``python -m tests.ops.metal.on_simulated_mac OP``.

Prints what is found wrong with it in its trial, in two schedules and with the checker of shaders, how much of its
tensors it touches, which of the faults of the op's test its trial notices, whether a shader with one is refused though
it is asked for, and whether one without is taken.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any
from unittest import mock

import torch

from patcher.ops.metal.library import HELD, LARGEST_GROUP, library
from patcher.ops.variants import trial
from patcher.ops.variants.choice import Choice
from patcher.simulator import metal, startup

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@contextmanager
def compiling(instead: Callable[[str], Any]) -> Iterator[None]:
    """Shaders are compiled anew, by ``instead``, which gets them with torch's headers."""
    library.cache_clear()
    with mock.patch.object(torch._C, "_mps_compileShader", instead):
        yield
    library.cache_clear()


class Counted:
    """A checked library, whose kernels note how many times the bytes of each tensor with rows they read and write."""

    def __init__(self, source: str, most: dict[str, float]) -> None:
        self.library, self.most = metal.compile_shader(source, check=True), most

    def __getattr__(self, name: str) -> Callable[..., None]:
        kernel = getattr(self.library, name)
        kernel.counts = True

        def launch(*args: Any, **kwargs: Any) -> None:
            kernel(*args, **kwargs)
            for number, tensor in enumerate(args):
                if isinstance(tensor, torch.Tensor) and tensor.dim() > 1:
                    touched = kernel.touched[tensor.untyped_storage().data_ptr()]
                    times = max(touched) / (tensor.numel() * tensor.element_size())
                    key = f"{name} {number}" + ", wide" * (tensor.shape[-1] > HELD * LARGEST_GROUP)
                    self.most[key] = max(times, self.most.get(key, 0.0))

        return launch


def main(op: str) -> None:
    """Tries every type."""
    startup.start("M3 Max 36GB")
    os.environ |= {"PATCHER_FORCE": f"metal:{op}", "PATCHER_TRITON_CACHE": "0"}
    test = import_module(f"tests.ops.metal.test_{op}")
    found: dict[str, Any] = {"touched": {}}
    ways: dict[str, tuple[Callable[[str], Any], Sequence[torch.dtype]]] = {
        "forwards": (metal.compile_shader, DTYPES),
        "backwards": (lambda source: metal.compile_shader(source, backwards=True), [torch.float32]),
        "checked": (lambda source: Counted(source, found["touched"]), [torch.float16]),
    }
    for way, (compile_shader, dtypes) in ways.items():
        with compiling(compile_shader):
            found[way] = {str(dtype): trial.wrong("metal", op, dtype) for dtype in dtypes}
    found["faults"] = {}
    for name, (change, dtype) in test.FAULTS.items():

        def broken(source: str, change: tuple[str, str] = change) -> Any:
            assert change[0] in source, change
            return metal.compile_shader(source.replace(*change))

        with compiling(broken):
            found["faults"][name] = trial.wrong("metal", op, dtype)
            chosen = Choice(op)[dtype]
        found["refused"] = found.get("refused", True) and chosen is None
    found["taken"] = Choice(op)[torch.bfloat16] is trial.functions("metal", op)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
