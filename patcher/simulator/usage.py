"""What a run used: plain numbers, ready for JSON. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

OUTSIDE = ""
"""The module of what ran in none: optimizers, clipping, losses written in a script."""

PHASES = ("other", "forward", "backward", "optimizer")
ARITHMETIC = ("none", "float16", "bfloat16", "float32")
"""What a kernel computes in: the widest floating dtype among its tensors; "none" for integers and bytes."""


@dataclass(frozen=True)
class Counts:
    """A number of kernels, and what they do.

    Attributes:
        dispatches: kernels that a Mac would launch.
        bytes_read: of tensors, distinct elements: an expanded dimension counts once.
        bytes_written: likewise.
        flops: two for a multiply-add.
    """

    dispatches: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    flops: int = 0

    @property
    def bytes(self) -> int:
        """Read and written."""
        return self.bytes_read + self.bytes_written

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.dispatches + other.dispatches,
            self.bytes_read + other.bytes_read,
            self.bytes_written + other.bytes_written,
            self.flops + other.flops,
        )

    def __sub__(self, other: Counts) -> Counts:
        return Counts(
            self.dispatches - other.dispatches,
            self.bytes_read - other.bytes_read,
            self.bytes_written - other.bytes_written,
            self.flops - other.flops,
        )


@dataclass(frozen=True)
class Row:
    """Kernels of one operator, module, phase and dtype, whose bytes and FLOPs are alike within a factor of two.

    Attributes:
        op: e.g. ``"aten::addmm"``; ``"metal::name"`` for a kernel of ``torch.mps.compile_shader``.
        module: path of the module whose forward, or whose forward's gradient, it belongs to; ``""`` for none.
        phase: one of `PHASES`.
        arithmetic: one of `ARITHMETIC`.
    """

    op: str
    module: str
    phase: str
    arithmetic: str
    counts: Counts


@dataclass(frozen=True)
class Copies:
    """Transfers between host and device. They are no dispatches, and their bytes are counted here only."""

    to_device: int = 0
    to_device_bytes: int = 0
    to_host: int = 0
    to_host_bytes: int = 0


@dataclass(frozen=True)
class Point:
    """Memory over time.

    Attributes:
        dispatches: kernels so far.
        bytes: the most that was held since the point before.
    """

    dispatches: int
    bytes: int


@dataclass(frozen=True)
class Step:
    """From the end of one optimizer step to the end of the next.

    Attributes:
        number: of the last optimizer step in it, from 1.
        steps: how many optimizer steps it holds: 1, or more where a long run was thinned out.
        peak_bytes: the most that was held.
        synchronizations: times that the host waited for the device.
        copied_bytes: between host and device, both ways.
    """

    number: int
    steps: int
    counts: Counts
    peak_bytes: int
    synchronizations: int
    copied_bytes: int


@dataclass(frozen=True)
class Usage:
    """What ran between the begin of a meter and now.

    Attributes:
        dispatches, bytes_read, bytes_written, flops: of all kernels; see `Counts`.
        peak_bytes: the most that tensors held at one time, tensors from before the meter included.
        reserved_bytes: the most that the allocator held at one time: what a Mac calls driver memory.
        synchronizations: times that the host waited for the device.
        copies: between host and device.
        rows: everything, by operator, module, phase and dtype.
        step_rows: like ``rows``, but only from the end of the first optimizer step to the end of the last: steps
            without what comes before and after training. Empty with less than two steps.
        steps: by optimizer step; what came after the last one is in none.
        timeline: memory over time, at most 1024 points.
    """

    dispatches: int
    bytes_read: int
    bytes_written: int
    flops: int
    peak_bytes: int
    reserved_bytes: int
    synchronizations: int
    copies: Copies
    rows: tuple[Row, ...] = field(repr=False)
    step_rows: tuple[Row, ...] = field(repr=False)
    steps: tuple[Step, ...] = field(repr=False)
    timeline: tuple[Point, ...] = field(repr=False)

    @property
    def counts(self) -> Counts:
        """The totals."""
        return Counts(self.dispatches, self.bytes_read, self.bytes_written, self.flops)

    @property
    def optimizer_steps(self) -> int:
        """How often an optimizer stepped."""
        return self.steps[-1].number if self.steps else 0

    @property
    def by_op(self) -> dict[str, Counts]:
        """Most bytes first."""
        return self._sum(lambda row: row.op)

    @property
    def by_module(self) -> dict[str, Counts]:
        """Each module's own kernels, without its children's: the values add up to the total."""
        return self._sum(lambda row: row.module)

    @property
    def by_phase(self) -> dict[str, Counts]:
        """Forward, backward, optimizer, and what is none of these."""
        return self._sum(lambda row: row.phase)

    @property
    def by_arithmetic(self) -> dict[str, Counts]:
        """By the dtype that kernels compute in."""
        return self._sum(lambda row: row.arithmetic)

    def within(self, module: str) -> Counts:
        """A module's kernels, its children's included."""
        inside = [row.counts for row in self.rows if row.module == module or row.module.startswith(f"{module}.")]
        return sum(inside, Counts())

    def to_dict(self) -> dict[str, Any]:
        """Everything, of types that JSON knows. `from_dict` reads it."""
        return asdict(self) | {
            "by_op": {name: asdict(counts) for name, counts in self.by_op.items()},
            "by_module": {name: asdict(counts) for name, counts in self.by_module.items()},
            "by_phase": {name: asdict(counts) for name, counts in self.by_phase.items()},
            "by_arithmetic": {name: asdict(counts) for name, counts in self.by_arithmetic.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Usage:
        """The inverse of `to_dict`."""
        steps = (Step(**{**step, "counts": Counts(**step["counts"])}) for step in data["steps"])
        plain = ("dispatches", "bytes_read", "bytes_written", "flops", "peak_bytes", "reserved_bytes")
        return cls(
            **{name: data[name] for name in plain},
            synchronizations=data["synchronizations"],
            copies=Copies(**data["copies"]),
            rows=_rows(data["rows"]),
            step_rows=_rows(data["step_rows"]),
            steps=tuple(steps),
            timeline=tuple(Point(**point) for point in data["timeline"]),
        )

    def _sum(self, key: Callable[[Row], str]) -> dict[str, Counts]:
        sums: dict[str, Counts] = {}
        for row in self.rows:
            sums[key(row)] = sums.get(key(row), Counts()) + row.counts
        return dict(sorted(sums.items(), key=lambda item: (-item[1].bytes, item[0])))


def _rows(data: Iterable[Mapping[str, Any]]) -> tuple[Row, ...]:
    return tuple(Row(**{**row, "counts": Counts(**row["counts"])}) for row in data)


@dataclass(frozen=True)
class Change:
    """What an operator, or a module, does in one run more than in another."""

    name: str
    before: Counts
    after: Counts

    @property
    def difference(self) -> Counts:
        """After minus before."""
        return self.after - self.before


def compare(before: Usage, after: Usage, by: str = "op") -> tuple[Change, ...]:
    """What differs between two runs, the largest difference in bytes first.

    Args:
        by: ``"op"``, ``"module"``, ``"phase"`` or ``"arithmetic"``.
    """
    first: dict[str, Counts] = getattr(before, f"by_{by}")
    second: dict[str, Counts] = getattr(after, f"by_{by}")
    names: Iterable[str] = dict.fromkeys([*first, *second])
    changes = [Change(name, first.get(name, Counts()), second.get(name, Counts())) for name in names]
    differing = [change for change in changes if change.before != change.after]
    return tuple(sorted(differing, key=lambda change: (-abs(change.difference.bytes), change.name)))
