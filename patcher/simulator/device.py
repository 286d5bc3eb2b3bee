"""Starts the simulated device in this process, and tells what it holds."""

from __future__ import annotations

import atexit
import contextlib
import importlib.machinery
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from patcher.errors import SimulatorUnavailable, compose
from patcher.mac import DEFAULT, max_buffer_bytes, parse, recommended_max_bytes
from patcher.simulator import build, faults, rules
from patcher.simulator.memory import Memory, watermarks

if TYPE_CHECKING:
    from patcher.simulator.torch_mps import Mac


class Device:
    """The simulated mps device of this process."""

    def __init__(self, native: ModuleType) -> None:
        self._native = native
        self.mac: Mac = parse(DEFAULT)
        self.rules = rules.Rules(native)

    @property
    def native(self) -> ModuleType:
        """The C++ module."""
        return self._native

    def become(self, mac: Mac) -> None:
        """Takes on another Mac's name, cores, macOS and memory limit. Live tensors stay."""
        from patcher.simulator import torch_mps

        self.mac = mac
        self._native.set_macos(*(mac.macos or (0, 0)))
        high, low = watermarks()
        self._native.set_memory_limits(
            recommended_max_bytes(mac.memory_bytes, mac.macos), max_buffer_bytes(mac.memory_bytes, mac.macos), high, low
        )
        torch_mps.name_device(mac)

    def memory(self) -> Memory:
        """Bytes held now and at the peaks, as tensors and as torch's allocator on a Mac would hold them."""
        return Memory(**self._native.memory())

    def reset_peak(self) -> None:
        """Lets the peaks start again from what is held now."""
        self._native.reset_peak_memory()

    @property
    def faults(self) -> tuple[str, ...]:
        """The names of the faults that are switched on; see `patcher.simulator.faults`."""
        return faults.active()

    def set_faults(self, sizes: Mapping[str, int]) -> None:
        """Replaces what is switched on; `patcher.simulator.faults.inject` is what to use."""
        self._native.set_faults(dict(sizes))

    @property
    def products(self) -> dict[str, str]:
        """By half-precision dtype, what computes matrix products, convolutions and attention.

        ``"native"``: torch's CPU kernels for the dtype. ``"float32"``: a product of float32 copies, rounded once, where
        torch would not use oneDNN's kernels for the dtype: without AVX-512 or AMX, or `torch.backends.mkldnn` off.
        """
        return dict(self._native.products())

    def set_products(self, computed: str) -> None:
        """Makes both dtypes ``"native"`` or ``"float32"``, or lets the ``"host"`` decide again. For tests."""
        self._native.set_products(computed)

    def operator_counts(self) -> dict[str, int]:
        """How often each operator ran on the device since the start or the last reset."""
        counts: dict[str, int] = self._native.operator_counts()
        return counts

    def reset_operator_counts(self) -> None:
        """Lets the operators be counted from zero."""
        self._native.reset_operator_counts()


_RUNNING: list[Device] = []
"""At most one device: what torch has registered cannot be taken back."""


def running() -> Device | None:
    """The device of this process, or None if it has not been started."""
    return _RUNNING[0] if _RUNNING else None


def start(mac: Mac | str | None = None) -> Device:
    """Gives this process an mps device. To be called after torch was imported and before it was asked about mps.

    Args:
        mac: the Mac to simulate: a text for `patcher.mac.parse`, a profile, or None for the one that is running
            already, else an M3 Max with 36 GB. A second call only changes which Mac it is.

    Raises:
        SimulatorUnavailable: it cannot be built or started here.
        InvalidSwitch: no such Mac, a PYTORCH_MPS_..._WATERMARK_RATIO that is no number, or PATCHER_SIMULATE_FAULTS,
            which is read when the device starts, names an unknown fault.
    """
    chosen = parse(mac) if isinstance(mac, str) else mac
    device = running()
    if device is None:
        wanted = faults.from_environment()
        device = Device(_load())
        device.become(chosen or parse(DEFAULT))
        _RUNNING.append(device)
        if wanted:
            faults.switch_on(wanted)
    elif chosen is not None:
        device.become(chosen)
    return device


def _load() -> ModuleType:
    import torch

    path = build.library(torch)
    loader = importlib.machinery.ExtensionFileLoader(build.MODULE, str(path))
    spec = importlib.util.spec_from_file_location(build.MODULE, path, loader=loader)
    assert spec is not None
    try:
        native = importlib.util.module_from_spec(spec)
    except ImportError as error:
        raise SimulatorUnavailable(
            compose(
                "the simulated mps device was built, but does not load",
                target=str(path),
                installed=f"torch {torch.__version__}",
                found=str(error),
                run=f"rm -r {path.parent}, and start again",
            )
        ) from error
    loader.exec_module(native)
    from patcher.simulator import torch_mps

    rules.load(native, torch)
    torch_mps.complete(native)
    atexit.register(_finish_backward, native)
    if not native.in_time:
        _check_backward(torch)
    return native


def _check_backward(torch: ModuleType) -> None:
    """Raises where a backward has already run: torch then made its backward threads, for the devices of that time.

    torch 2.13.0, torch/csrc/autograd/engine.cpp, initialize_device_threads_pool.
    """
    try:
        torch.ones((), device="mps", requires_grad=True).backward()
    except RuntimeError as error:
        if "device_ready_queues_" not in str(error):
            raise
        raise SimulatorUnavailable(
            compose(
                "a backward() ran before the simulated mps device was started; torch cannot add a device after that",
                left="tensors on mps work in this process, but not their gradients",
                run="call patch_for_mac() at the top of the script",
            )
        ) from error


def _finish_backward(native: ModuleType) -> None:
    """Lets torch's backward thread come to rest before the interpreter goes away.

    When a backward returns, its thread may still have Python objects to release; one that waits for the GIL while
    Python finalizes is ended by force, and torch aborts the process ("terminate called without an active exception",
    seen with torch 2.13.0 on Python 3.11).
    """
    if any(name.startswith("pt_autograd") for name in _thread_names()):
        native.drain_backward()


def _thread_names() -> list[str]:
    names = []
    for path in Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended meanwhile
            names.append(path.read_text())
    return names
