"""What a CPU build of torch lacks on its Python side to answer for mps."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, NoReturn, Protocol

import torch


class Mac(Protocol):
    """What the simulator wants to know of a Mac: `MacProfile` and `Machine` of `patcher.macs` have it."""

    @property
    def chip(self) -> str: ...
    @property
    def gpu_cores(self) -> int: ...
    @property
    def memory_bytes(self) -> int: ...
    @property
    def macos(self) -> tuple[int, int] | None: ...
    @property
    def torch(self) -> str | None: ...


def complete(native: ModuleType, compile_shader: Callable[..., object]) -> None:
    """Supplies the parts of ``torch._C`` and of storages that only a Mac's build has.

    Args:
        native: the C++ module.
        compile_shader: what stands in for ``torch._C._mps_compileShader``.
    """
    torch._C._has_mps = True
    for name, function in {
        "_mps_host_alias_storage": native.host_alias,
        "_mps_isCaptureEnabled": _never,
        "_mps_isCapturing": _never,
        "_mps_startCapture": _no_capture,
        "_mps_stopCapture": _no_capture,
        "_mps_compileShader": compile_shader,
        "_mps_loadMetalllib": _no_metallib,  # torch 2.13.0 spells it so
        "_mps_loadMetallibFromPath": _no_metallib,
    }.items():
        setattr(torch._C, name, function)
    _teach_storages(native.allocator_address())


def name_device(mac: Mac) -> None:
    """Lets ``torch.backends.mps`` answer with this Mac's name and number of GPU cores."""
    chip, cores = mac.chip, mac.gpu_cores
    setattr(torch._C, "_mps_get_name", lambda: chip)  # noqa: B010 - absent from torch's stubs on Linux
    setattr(torch._C, "_mps_get_core_count", lambda: cores)  # noqa: B010
    backend = torch.backends.mps
    for cached in (
        backend.is_available,
        backend.is_macos_or_newer,
        backend.is_macos13_or_newer,
        backend.get_name,
        backend.get_core_count,
    ):
        cached.cache_clear()


def _never() -> bool:
    return False


def _no_capture(*_: object) -> NoReturn:
    raise RuntimeError("the simulated mps device runs no Metal commands that could be captured")


def _no_metallib(_: object) -> NoReturn:
    raise RuntimeError(
        "the simulated mps device cannot run a .metallib, which holds code for Apple's GPUs; give the Metal source to"
        " torch.mps.compile_shader"
    )


def _teach_storages(allocator: int) -> None:
    """``torch.UntypedStorage(n, device="mps")``: its constructor knows no mps in a CPU build.

    torch 2.13.0, torch/csrc/Storage.cpp, THPStorage_pynew: "Storage device not recognized". It does take an allocator,
    by address. Unpickling, ``torch.load`` and ``storage.mps()`` construct storages this way.
    """
    construct: Callable[..., Any] = torch._C.StorageBase.__new__

    def new(cls: type[Any], *args: Any, **kwargs: Any) -> Any:
        device = kwargs.get("device")
        if device is None or torch.device(device).type != "mps":
            return construct(cls, *args, **kwargs)
        return construct(cls, *args, **{**kwargs, "device": None}, allocator=allocator)

    torch.UntypedStorage.__new__ = new  # type: ignore[method-assign]
