"""NCCL and the tuning of cuBLAS, which are CUDA's own libraries, are refused by name.

Without CUDA these functions end in an AttributeError of ``torch._C``, which says nothing to the reader of a script.
"""

from __future__ import annotations

from dataclasses import dataclass

from patcher.changes.torch import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch


@dataclass(frozen=True)
class Absent:
    """Functions that have no counterpart on mps.

    Attributes:
        module: the one that defines them.
        names: of the functions.
        of: what they belong to.
        instead: what a script writes instead.
    """

    module: str
    names: tuple[str, ...]
    of: str
    instead: str

    @property
    def targets(self) -> tuple[str, ...]:
        """Where a script finds them."""
        return tuple(f"{self.module}:{name}" for name in self.names)


ABSENT = (
    Absent(
        "torch.cuda.nccl",
        ("version", "unique_id", "init_rank", "all_reduce", "reduce", "broadcast", "all_gather", "reduce_scatter"),
        "NCCL, which carries tensors between CUDA's GPUs",
        "leave the call out: there is one GPU",
    ),
    Absent(
        "torch.cuda.tunable",
        (
            "enable",
            "is_enabled",
            "tuning_enable",
            "tuning_is_enabled",
            "record_untuned_enable",
            "record_untuned_is_enabled",
            "set_max_tuning_duration",
            "get_max_tuning_duration",
            "set_max_tuning_iterations",
            "get_max_tuning_iterations",
            "set_filename",
            "get_filename",
            "get_results",
            "get_validators",
            "read_file",
            "set_rotating_buffer_size",
            "get_rotating_buffer_size",
            "set_numerical_check_tolerances",
        ),
        "the products of cuBLAS",
        "leave torch.cuda.tunable out: there is nothing to tune on mps",
    ),
)

CHANGES: tuple[AnyChange, ...] = tuple(
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target=target,
        replacement=f"patcher.replacements.torch.cuda_library:REFUSALS.{target.replace('.', '_').replace(':', '__')}",
        needed_for=None,
        why=f"it belongs to {absent.of}, and ends in an AttributeError of torch._C",
        upstream=source("torch/cuda/__init__.py", "_lazy_init"),
        until="torch.cuda says itself that a function needs CUDA",
    )
    for absent in ABSENT
    for target in absent.targets
)
