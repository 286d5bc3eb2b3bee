"""Counts what a piece of a program makes the simulated device do.

    with Meter() as meter:
        trainer.train()
    usage = meter.usage()
    print(usage.dispatches, usage.flops, usage.peak_bytes, usage.by_op)

Every kernel that a Mac would launch is put down: torch's operators, Metal kernels, what ``torch.compile`` generates.
Views, allocations and whatever runs on the CPU cost nothing.
"""

from __future__ import annotations

import weakref
from dataclasses import replace
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any

from patcher.errors import MeterRunning, SimulatorUnavailable, compose
from patcher.simulator.device import running
from patcher.simulator.usage import ARITHMETIC, OUTSIDE, PHASES, Copies, Counts, Point, Row, Step, Usage

if TYPE_CHECKING:
    import torch
    from torch.utils.hooks import RemovableHandle

__all__ = ["Meter", "Usage"]

MOST_STEPS = 1024
"""Beyond this many steps, neighbours are put together in twos."""

_ACTIVE: list[Meter] = []
"""At most one."""


class Meter:
    """A context manager that counts. One at a time; it may be used again, and then starts from zero.

    Args:
        modules: also tell by module. It costs two Python calls for each forward of a module.
    """

    def __init__(self, *, modules: bool = True) -> None:
        self._by_module = modules
        self._names = _Modules()
        self._handles: list[RemovableHandle] = []
        self._steps: list[Step] = []
        self._last = _NOTHING
        self._usage: Usage | None = None
        self._native: ModuleType | None = None

    def __enter__(self) -> Meter:
        device = running()
        if device is None:
            raise SimulatorUnavailable(
                compose(
                    "a meter counts what runs on the simulated mps device, which is not there",
                    run="patcher.simulator.start() first, or UNSLOTH_SIMULATE_MAC=1 and patch_for_mac()",
                )
            )
        if _ACTIVE:
            raise MeterRunning(
                compose(
                    "a meter is running already; the device has one account",
                    left="the first meter goes on counting",
                    run="ask the running meter: usage() may be called at any time",
                )
            )
        self._native = device.native
        self._names, self._steps, self._last, self._usage = _Modules(), [], _NOTHING, None
        _ACTIVE.append(self)
        self._native.meter_start()
        self._hook(self._native)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._native is not None
        self._native.meter_stop()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._usage = self._read(self._native)
        _ACTIVE.remove(self)

    def usage(self) -> Usage:
        """What has run so far, or until the end.

        Raises:
            MeterRunning: it has not been entered yet.
        """
        if self._usage is not None:
            return self._usage
        if self._native is None:
            raise MeterRunning(
                compose("this meter has counted nothing yet", run="with Meter() as meter: ...; meter.usage()")
            )
        return self._read(self._native)

    def _hook(self, native: ModuleType) -> None:
        from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

        def before_step(*_: Any) -> None:
            native.meter_enter_optimizer()

        def after_step(*_: Any) -> None:
            native.meter_leave_optimizer()
            self._end_step(native)

        self._handles += [register_optimizer_step_pre_hook(before_step), register_optimizer_step_post_hook(after_step)]
        if self._by_module:
            self._handles += self._names.hook(native)

    def _end_step(self, native: ModuleType) -> None:
        now = native.meter_totals()
        step = Step(
            number=self._steps[-1].number + 1 if self._steps else 1,
            steps=1,
            counts=_counts(now) - _counts(self._last),
            peak_bytes=now["recent_peak"],
            synchronizations=now["synchronizations"] - self._last["synchronizations"],
            copied_bytes=_copied(now) - _copied(self._last),
        )
        self._last = now
        self._steps.append(step)
        native.meter_end_step()
        if len(self._steps) >= 2 * MOST_STEPS:
            self._steps = [_together(*pair) for pair in zip(self._steps[::2], self._steps[1::2], strict=True)]

    def _read(self, native: ModuleType) -> Usage:
        totals = native.meter_totals()
        names = self._names.paths
        rows, step_rows = [], []
        for op, module, phase, arithmetic, all_counts, step_counts in native.meter_rows():
            row = Row(op, names[module], PHASES[phase], ARITHMETIC[arithmetic], Counts(*all_counts))
            rows.append(row)
            if step_counts[0]:
                step_rows.append(replace(row, counts=Counts(*step_counts)))
        return Usage(
            **{name: totals[name] for name in ("dispatches", "bytes_read", "bytes_written", "flops")},
            peak_bytes=totals["peak"],
            reserved_bytes=totals["peak_driver"],
            synchronizations=totals["synchronizations"],
            copies=Copies(
                **{name: totals[name] for name in ("to_device", "to_device_bytes", "to_host", "to_host_bytes")}
            ),
            rows=tuple(sorted(rows, key=_order)),
            step_rows=tuple(sorted(step_rows, key=_order)),
            steps=tuple(self._steps),
            timeline=tuple(Point(*point) for point in native.meter_points()),
        )


def record_shader(name: str, read: int, written: int, tensors: list[torch.Tensor]) -> None:
    """Puts down a launch of ``torch.mps.compile_shader``; does nothing while no meter runs.

    Args:
        name: the kernel's.
        read, written: bytes.
        tensors: the arguments; the widest floating one tells what the kernel computes in.
    """
    if not _ACTIVE:
        return
    native = _ACTIVE[0]._native
    assert native is not None
    widest = max((_arithmetic(tensor) for tensor in tensors), default=0)
    native.meter_shader(f"metal::{name}", read, written, widest)


def _arithmetic(tensor: torch.Tensor) -> int:
    name = str(tensor.dtype).removeprefix("torch.")
    return ARITHMETIC.index(name) if name in ARITHMETIC else 0


class _Modules:
    """Gives modules numbers and paths, and tells the device which one runs.

    A path begins with the class of the module that was called from outside: ``LlamaForCausalLM.model.layers.0``. A
    module that is registered in several places has the path of the first.
    """

    def __init__(self) -> None:
        self.paths = [OUTSIDE]
        self._numbers: weakref.WeakKeyDictionary[torch.nn.Module, int] = weakref.WeakKeyDictionary()

    def hook(self, native: ModuleType) -> list[RemovableHandle]:
        import torch
        from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

        def enter(module: torch.nn.Module, _: Any) -> None:
            # What torch.compile traces belongs to the module whose call starts it.
            if not torch.compiler.is_compiling():
                native.meter_enter_module(self._number(native, module))

        def leave(module: torch.nn.Module, _: Any, __: Any) -> None:
            if not torch.compiler.is_compiling():
                native.meter_leave_module(self._number(native, module))

        return [register_module_forward_pre_hook(enter), register_module_forward_hook(leave, always_call=True)]

    def _number(self, native: ModuleType, module: torch.nn.Module) -> int:
        number = self._numbers.get(module)
        return self._learn(native, module) if number is None else number

    def _learn(self, native: ModuleType, root: torch.nn.Module) -> int:
        name = type(root).__name__
        same = sum(path.split(".")[0].split("#")[0] == name and "." not in path for path in self.paths)
        root_path = name if same == 0 else f"{name}#{same + 1}"
        for path, module in root.named_modules(remove_duplicate=True):
            if module in self._numbers:
                continue
            self._numbers[module] = number = len(self.paths)
            self.paths.append(f"{root_path}.{path}" if path else root_path)
            for parameter in module.parameters(recurse=False):
                native.meter_owns(number, parameter)
        return self._numbers[root]


_NOTHING: dict[str, int] = dict.fromkeys(
    (
        "dispatches",
        "bytes_read",
        "bytes_written",
        "flops",
        "synchronizations",
        "to_device_bytes",
        "to_host_bytes",
    ),
    0,
)


def _counts(totals: dict[str, int]) -> Counts:
    return Counts(totals["dispatches"], totals["bytes_read"], totals["bytes_written"], totals["flops"])


def _copied(totals: dict[str, int]) -> int:
    return totals["to_device_bytes"] + totals["to_host_bytes"]


def _order(row: Row) -> tuple[str | int, ...]:
    return row.module, row.phase, row.op, row.arithmetic, row.counts.bytes, row.counts.flops


def _together(first: Step, second: Step) -> Step:
    return Step(
        number=second.number,
        steps=first.steps + second.steps,
        counts=first.counts + second.counts,
        peak_bytes=max(first.peak_bytes, second.peak_bytes),
        synchronizations=first.synchronizations + second.synchronizations,
        copied_bytes=first.copied_bytes + second.copied_bytes,
    )
