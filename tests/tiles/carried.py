"""Launches on tensors of the CPU, carried to the simulated mps device and back, so that a case need not know of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from patcher.simulator import metal, startup
from patcher.tiles import admission, launch, on_metal, on_torch
from patcher.tiles.program import Program

refused: list[str] = []
"""Why launches ran with torch."""

ran: list[str] = []
"""Kernels that ran as Metal shaders."""


def launches_are_carried(mode: str = "metal") -> None:
    """Every launch from now on. MODE is "metal", "metal-checked", "metal-backwards" or "metal-admitted"."""
    startup.start("M1")
    how = {"check": mode == "metal-checked", "backwards": mode == "metal-backwards"}
    torch._C._mps_compileShader = partial(metal.compile_shader, **how)
    launch.run = partial(run, start=_admitted if mode == "metal-admitted" else on_metal.run)  # type: ignore[assignment]


@torch.inference_mode()  # where tensors made in that mode can be written too
def run(
    program: Program,
    grid: tuple[int, int, int],
    arguments: Sequence[Any],
    device: torch.device,
    num_warps: int = 4,
    start: Callable[..., Any] = on_metal.run,
) -> None:
    """As `patcher.tiles.backends.run`, on mps whatever ``device`` is; ``start`` launches a shader."""
    copies: dict[int, torch.Tensor] = {}
    try:
        carried = [_carried(given, copies) if isinstance(given, torch.Tensor) else given for given in arguments]
        start(program, grid, carried, num_warps)
    except on_metal.NotOnMetal as refusal:
        refused.append(str(refusal))
        on_torch.run(program, grid, arguments, device)
        return
    ran.append(program.name)
    for argument in arguments:
        if isinstance(argument, torch.Tensor):
            _bytes(argument).copy_(copies[argument.untyped_storage().data_ptr()].cpu())


def _admitted(program: Program, grid: tuple[int, int, int], arguments: Sequence[Any], num_warps: int) -> None:
    """As every launch is the first one: what is wrong with it is why it is refused."""
    launcher = on_metal.launcher_of(program, grid, arguments, num_warps)
    try:
        wrong = admission.first_launch(program, launcher, grid, arguments)
    except admission.Undecided as undecided:
        raise on_metal.NotOnMetal(f"undecided: {undecided}") from undecided
    if wrong:
        raise on_metal.NotOnMetal(f"wrong: {wrong}")


def with_torch(
    program: Program, grid: tuple[int, int, int], arguments: Sequence[Any], device: torch.device, num_warps: int = 4
) -> None:
    """The same with the other back end."""
    on_torch.run(program, grid, arguments, device)


def _carried(tensor: torch.Tensor, copies: dict[int, torch.Tensor]) -> torch.Tensor:
    if tensor.dtype == torch.float64:
        raise on_metal.NotOnMetal("fp64 is no type of Metal's")
    key = tensor.untyped_storage().data_ptr()
    if key not in copies:
        copies[key] = _bytes(tensor).to("mps")
    whole = copies[key].view(tensor.dtype)
    return whole.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor's whole storage."""
    size = tensor.untyped_storage().nbytes() // tensor.element_size()
    return tensor.data.as_strided((size,), (1,), 0).view(torch.uint8)
