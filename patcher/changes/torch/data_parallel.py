"""``torch.nn.DataParallel`` and ``data_parallel`` take module and batch to the one GPU, as with one GPU on CUDA."""

from __future__ import annotations

from functools import partial

from patcher.changes.torch import DISTRIBUTION, REVIEWED, source
from patcher.changes.torch.cuda_availability import where_the_user_says_no
from patcher.engine.model import AnyChange, Patch

_patch = partial(
    Patch,
    distribution=DISTRIBUTION,
    reviewed=REVIEWED,
    needed_for=None,
    until="DataParallel of torch scatters to mps",
)
_HERE = "patcher.replacements.torch.data_parallel"
_upstream = partial(source, "torch/nn/parallel/data_parallel.py")

CHANGES: tuple[AnyChange, ...] = (
    _patch(
        target="torch.nn:DataParallel.__init__",
        replacement=f"{_HERE}:data_parallel_init",
        expects="(self, module, device_ids=None, output_device=None, dim=0)",
        why="the module stays on the CPU, where one GPU of CUDA would have taken it, and trains there without a word",
        upstream=_upstream("DataParallel.__init__"),
        skip=where_the_user_says_no,
    ),
    _patch(
        target="torch.nn:DataParallel.forward",
        replacement=f"{_HERE}:forward",
        expects="(self, *inputs, **kwargs)",
        why="a batch on the CPU, which DataParallel copies to CUDA, stays there and does not fit the module on mps",
        upstream=_upstream("DataParallel.forward"),
    ),
    _patch(
        target="torch.nn.parallel:data_parallel",
        replacement=f"{_HERE}:data_parallel",
        expects="(module, inputs, device_ids=None, output_device=None, dim=0, module_kwargs=None)",
        why="it scatters by a C function of CUDA's, and ends in an AttributeError of torch._C",
        upstream=_upstream("data_parallel"),
    ),
)
