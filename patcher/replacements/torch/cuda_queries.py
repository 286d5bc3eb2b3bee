"""What is asked of CUDA in passing, for the one GPU that there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch

from patcher.engine.ledger import LEDGER
from patcher.errors import NotOnMac, compose
from patcher.replacements.torch import mps
from patcher.replacements.torch.cuda_device import MPS


class _Generators(Sequence[torch.Generator]):
    """The one generator of mps, asked for when it is needed."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: Any) -> Any:
        return (torch.mps._get_default_mps_generator(),)[index]


default_generators = _Generators()

_MODES = {"default": 0, "warn": 1, "error": 2}


class SyncDebugMode:
    """What the script has set while the patches are in place; mps reports no synchronisation."""

    number = 0


class CudaRuntime:
    """What scripts call of CUDA's runtime library, as ``torch.cuda.cudart()`` gives it; 0 is its success."""

    @staticmethod
    def cudaProfilerStart() -> int:
        """Nothing to do: NVIDIA's profiler is not there."""
        return 0

    @staticmethod
    def cudaProfilerStop() -> int:
        """Nothing to do, as `cudaProfilerStart`."""
        return 0

    @staticmethod
    def cudaMemGetInfo(device: int = 0) -> tuple[int, int]:
        """(free, total) bytes, as ``torch.cuda.mem_get_info``."""
        return mps.mem_get_info(device)


def cudart() -> CudaRuntime:
    """The few functions of `CudaRuntime`."""
    return CudaRuntime()


def check_error(res: int) -> None:
    """Raises RuntimeError for a number that is not CUDA's success."""
    if int(res):
        raise RuntimeError(f"CUDA error {int(res)}, which no call on mps gives")


def can_device_access_peer(device: Any, peer_device: Any) -> bool:
    """False: the one GPU has no peer. AssertionError for a number other than 0, as where CUDA has one GPU."""
    for name, asked in (("device", device), ("peer device", peer_device)):
        if (asked if isinstance(asked, int) else torch.device(asked or "cuda").index or 0) != 0:
            raise AssertionError(f"Invalid {name} id")
    return False


def get_sync_debug_mode() -> int:
    """What was set, 0 before."""
    return LEDGER.memory(SyncDebugMode).number


def set_sync_debug_mode(debug_mode: int | str) -> None:
    """Accepted, without effect: mps neither warns of a synchronisation nor refuses one."""
    number = _MODES.get(debug_mode, -1) if isinstance(debug_mode, str) else debug_mode
    if number not in _MODES.values():
        raise RuntimeError(f"invalid value of debug_mode, expected one of {sorted(_MODES)}: {debug_mode!r}")
    LEDGER.memory(SyncDebugMode).number = number


def current_blas_handle() -> NoReturn:
    """Raises NotOnMac."""
    raise _refusal("torch.cuda.current_blas_handle: mps has no cuBLAS", "torch.matmul and its kin")


def current_solver_handle() -> NoReturn:
    """Raises NotOnMac."""
    raise _refusal("torch.cuda.current_solver_handle: mps has no cuSOLVER", "torch.linalg")


def get_stream_from_external(data_ptr: int, device: Any = None) -> NoReturn:
    """Raises NotOnMac."""
    raise _refusal("torch.cuda.get_stream_from_external: there is no stream of CUDA's", "torch.cuda.current_stream()")


def __new__(cls: type, stream_ptr: int, device: Any = None, **kwargs: Any) -> NoReturn:  # noqa: N807 - a class's
    """Raises NotOnMac."""
    raise _refusal("torch.cuda.ExternalStream: there is no stream of CUDA's", "torch.cuda.current_stream()")


def _broadcast(tensor: torch.Tensor, devices: Sequence[int]) -> tuple[torch.Tensor, ...]:
    """The tensor on each of the devices, of which there is one."""
    return tuple(tensor.to(MPS) for _ in _one(devices))


def _broadcast_coalesced(
    tensors: Sequence[torch.Tensor], devices: Sequence[int], buffer_size: int
) -> list[list[torch.Tensor]]:
    """The tensors on each of the devices, of which there is one."""
    return [[tensor.to(MPS) for tensor in tensors] for _ in _one(devices)]


def _scatter(tensor: torch.Tensor, devices: Sequence[int], chunk_sizes: Any, dim: int, streams: Any) -> Any:
    """The whole tensor as the part of the one device."""
    return tuple(tensor.to(MPS) for _ in _one(devices))


def _gather(tensors: Sequence[torch.Tensor], dim: int, destination: int | None) -> torch.Tensor:
    """The tensors, side by side along ``dim``: on the CPU for ``destination`` -1, else on mps."""
    return torch.cat([tensor.to("cpu" if destination == -1 else MPS) for tensor in tensors], dim)


def _one(devices: Sequence[int]) -> Sequence[int]:
    for device in devices:
        mps.set_device(device)
    return devices


def _refusal(what: str, instead: str) -> NotOnMac:
    return NotOnMac(compose(what, expected=instead, left="nothing changed"))
