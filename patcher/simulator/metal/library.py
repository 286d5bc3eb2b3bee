"""What ``torch.mps.compile_shader`` returns on the simulated device."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from patcher.simulator import meter
from patcher.simulator.device import running
from patcher.simulator.metal import arguments, toolchain
from patcher.simulator.metal.translate import SOURCE_NAME, Kernel

THREADGROUP_BYTES = 32768
"""Threadgroup memory of a group, on every Apple GPU."""
ERROR_TEXT = slice(256, 506)
ERROR_BYTES, ERRORS = 512, 30
"""Layout of c10::metal::ErrorMessages: a count, and 30 messages with a file, a function, a text and a line."""
SLACK = 16
"""Bytes after a scalar: a kernel may read a vector of three as four."""


class _Extent(ctypes.Structure):
    """`metal_cpu::Extent` in runtime/runtime.h."""

    _fields_ = (
        ("address", ctypes.c_void_p),
        ("bytes", ctypes.c_size_t),
        ("read", ctypes.c_uint64),
        ("written", ctypes.c_uint64),
    )


class _Launch(ctypes.Structure):
    """`metal_cpu::Launch` in runtime/runtime.h."""

    _fields_ = (
        ("backwards", ctypes.c_uint),
        ("threadgroup_limit", ctypes.c_uint),
        ("threadgroup_used", ctypes.c_uint),
        ("checked", ctypes.c_uint),
        ("counted", ctypes.c_uint),
        ("buffers", ctypes.POINTER(_Extent)),
        ("buffer_count", ctypes.c_uint),
        ("message", ctypes.c_char * 512),
    )


@dataclass(frozen=True)
class _Buffer:
    """An argument as the kernel sees it.

    Attributes:
        address: where it begins.
        extents: what may be touched through it: begin and number of bytes of each piece of memory.
        keep: what has to live until the kernel is done.
    """

    address: int
    extents: tuple[tuple[int, int], ...]
    keep: object = None


class MetalKernel:
    """A kernel that can be called with tensors and numbers.

    Attributes:
        counts: whether a kernel that was compiled for the checker counts what it touches.
        touched: bytes that the last launch read and wrote, by the address of a buffer: of a tensor, where its storage
            begins. Lanes of a simdgroup that touch the same bytes by one instruction touch them once; atomic
            accesses do not count.
    """

    thread_execution_width = 32
    counts = False

    def __init__(self, kernel: Kernel, launcher: Any, program: toolchain.Program, backwards: bool) -> None:
        self._kernel = kernel
        self._launcher = launcher
        self._program = program
        self._backwards = backwards
        self._threadgroup_used = 0
        self.touched: dict[int, tuple[int, int]] = {}

    @property
    def max_threads_per_threadgroup(self) -> int:
        """1024, or what the kernel's attribute says."""
        return self._kernel.max_threads

    @property
    def static_thread_group_memory_length(self) -> int:
        """Bytes of threadgroup memory. Here it is known after the first call; 0 before."""
        return self._threadgroup_used

    def __call__(
        self,
        *args: Any,
        threads: int | Sequence[int] | None = None,
        group_size: int | Sequence[int] | None = None,
        arg_casts: str | Mapping[int, str] | None = None,
        error_buf_idx: int | None = None,
    ) -> None:
        """Runs the kernel, to the end.

        Args:
            args: the buffers in order: tensors (their storage from their offset on), ints (int64), floats (float32),
                lists of either, lists of tensors (their addresses).
            threads: of the whole grid, in up to three dimensions; by default one for each element of the first tensor.
            group_size: threads of a threadgroup, in as many dimensions.
            arg_casts: what numbers are converted to: one cast for all, or by index of the argument.
            error_buf_idx: where the kernel expects the buffer for its error messages, in place of an argument or behind
                them. The first message is an AcceleratorError when the host next waits for the GPU.
        """
        if self._program.unset:
            raise RuntimeError(
                "Failed to created pipeline state object, error: function constants"
                f" {', '.join(map(str, self._program.unset))} of {self._kernel.name} have no value"
            )
        values = list(args)
        numel = next((value.numel() for value in values if isinstance(value, torch.Tensor)), None)
        grid, group = arguments.sizes(threads, group_size, numel, self.max_threads_per_threadgroup)
        buffers = [_buffer(value, arguments.cast_of(i, arg_casts)) for i, value in enumerate(values)]
        errors = ctypes.create_string_buffer(4 + ERRORS * ERROR_BYTES)
        if error_buf_idx is not None and error_buf_idx <= len(buffers):
            buffers[error_buf_idx : error_buf_idx + 1] = [_memory(errors)]
        if len(buffers) < self._kernel.buffers:
            raise RuntimeError(
                f"{self._kernel.name} takes {self._kernel.buffers} buffers, {len(buffers)} were given: the GPU of a Mac"
                " would read from an address that nobody has set"
            )
        if 0 not in grid:
            self._launch(buffers, grid, group)
            self._meter(values)
        _report(errors.raw)

    def _meter(self, values: list[Any]) -> None:
        """Puts the launch down: what may be written counts as written, the rest as read, each tensor whole."""
        written = self._kernel.written
        read_bytes = written_bytes = 0
        tensors = []
        for i, value in enumerate(values):
            if isinstance(value, torch.Tensor) and value.device.type == "mps":
                tensors.append(value)
                read_bytes += 0 if i in written else value.nbytes
                written_bytes += value.nbytes if i in written else 0
        meter.record_shader(self._kernel.name, read_bytes, written_bytes, tensors)

    def _launch(self, buffers: list[_Buffer], grid: list[int], group: list[int]) -> None:
        addresses = (ctypes.c_void_p * max(len(buffers), 1))(*(buffer.address for buffer in buffers))
        pieces = sorted({piece for buffer in buffers for piece in buffer.extents})
        extents = (_Extent * max(len(pieces), 1))(*(_Extent(*piece) for piece in pieces))
        launch = _Launch(
            backwards=self._backwards,
            threadgroup_limit=THREADGROUP_BYTES,
            checked=self._program.checked,
            counted=self.counts,
            buffers=extents,
            buffer_count=len(pieces),
        )
        three = ctypes.c_uint * 3
        self._launcher(addresses, three(*grid), three(*group), ctypes.byref(launch))
        self._threadgroup_used = launch.threadgroup_used
        self.touched = {extent.address: (extent.read, extent.written) for extent in extents[: len(pieces)]}
        if launch.message:
            message = _with_line(launch.message.decode(), self._program.library)
            raise RuntimeError(f"{self._kernel.name}: {message}")


def _buffer(value: Any, cast: str) -> _Buffer:
    if isinstance(value, torch.Tensor) and value.device.type != "cpu":
        return _Buffer(arguments.address(value), (_storage(value),))
    packed = arguments.pack_cpu_scalar(value) if isinstance(value, torch.Tensor) else arguments.pack(value, cast)
    own = _memory(ctypes.create_string_buffer(packed, len(packed) + SLACK))
    tensors = [one for one in value if isinstance(one, torch.Tensor)] if isinstance(value, list | tuple) else []
    return _Buffer(own.address, (*own.extents, *map(_storage, tensors)), own.keep)


def _memory(buffer: Any) -> _Buffer:
    return _Buffer(ctypes.addressof(buffer), ((ctypes.addressof(buffer), len(buffer)),), buffer)


def _storage(tensor: torch.Tensor) -> tuple[int, int]:
    storage = tensor.untyped_storage()
    return int(storage.data_ptr()), int(storage.nbytes())


def _with_line(message: str, library: Path) -> str:
    """Turns the place in the library at which the checker's message begins into a line of the source."""
    match = re.match(r"@([0-9a-f]+): ", message)
    if match is None:
        return message
    text = message[match.end() :]
    program = shutil.which("addr2line")
    if program is None:
        return text
    command = [program, "-i", "-e", str(library), f"0x{match[1]}"]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    places = re.findall(rf"{SOURCE_NAME}:\d+", "\n".join(lines))
    return f"{places[0]}: {text}" if places else text


def _report(errors: bytes) -> None:
    """Hands on what the kernel has reported with TORCH_REPORT_ERROR."""
    if int.from_bytes(errors[:4], "little"):
        text = errors[4:][ERROR_TEXT].split(b"\0")[0]
        device = running()
        assert device is not None
        device.native.report_error(text.decode(errors="replace"))


class ShaderLibrary:
    """The kernels of a source, as attributes."""

    def __init__(self, program: toolchain.Program, *, backwards: bool = False) -> None:
        toolchain.runtime()
        loaded = ctypes.CDLL(str(program.library))
        self._kernels = {
            kernel.name: MetalKernel(kernel, getattr(loaded, f"metal_cpu_launch_{i}"), program, backwards)
            for i, kernel in enumerate(program.kernels)
        }

    def __getattr__(self, name: str) -> MetalKernel:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self._kernels[name]
        except KeyError:
            raise RuntimeError(f"Failed to create function state object for: {name}") from None

    def __dir__(self) -> list[str]:
        return list(self._kernels)
