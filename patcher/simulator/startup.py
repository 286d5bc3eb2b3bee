"""Starts the simulated device in this process."""

from __future__ import annotations

import atexit
import contextlib
import importlib.machinery
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from patcher.errors import SimulatorUnavailable, compose
from patcher.macs.mac import DEFAULT, default_torch, parse, release_of
from patcher.simulator import build, faults, rules
from patcher.simulator.device import Device, become_running, running

if TYPE_CHECKING:
    from patcher.simulator.torch_mps import Mac


def start(mac: Mac | str | None = None) -> Device:
    """Gives this process an mps device. To be called after torch was imported and before it was asked about mps.

    Args:
        mac: the Mac to simulate: a text for `patcher.macs.mac.parse`, a profile, or None for the one that is running
            already, else an M3 Max with 36 GB. A second call only changes which Mac it is; its torch stays.

    Raises:
        SimulatorUnavailable: it cannot be built or started here, or one with another torch is running.
        InvalidSwitch: no such Mac, a PYTORCH_MPS_..._WATERMARK_RATIO that is no number, or PATCHER_SIMULATE_TORCH or
            PATCHER_SIMULATE_FAULTS, which are read when the device starts, name what is not known.
    """
    device = running()
    chosen = parse(mac, device.torch if device is not None else None) if isinstance(mac, str) else mac
    if device is None:
        wanted = faults.from_environment()
        chosen = chosen or parse(DEFAULT)
        version = chosen.torch or default_torch()
        device = Device(_load(version), version)
        device.become(chosen)
        become_running(device)
        if wanted:
            faults.switch_on(wanted)
    elif chosen is not None:
        device.become(chosen)
    return device


def _load(version: str) -> ModuleType:
    """The compiled device, with the rules of this version of torch on a Mac."""
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
    from patcher.simulator.metal import compile_shader

    native.set_mac_torch(*map(int, release_of(version).split(".")))
    rules.load(native, torch, version)
    torch_mps.complete(native, compile_shader)
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
