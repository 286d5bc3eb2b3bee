"""Thousands of things made and thrown away leave nothing behind."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from patcher.simulator import Device

pytestmark = pytest.mark.slow

CYCLES = 1000


def events() -> None:
    first, second = torch.mps.Event(enable_timing=True), torch.mps.Event(enable_timing=True)
    first.record()
    second.record()
    first.elapsed_time(second)
    torch.Event("mps", enable_timing=True).record()


def streams_and_generators() -> None:
    torch.Stream(device="mps").query()
    generator = torch.Generator(device="mps").manual_seed(1)
    generator.clone_state()
    torch.rand(2, device="mps", generator=generator)
    torch.mps.set_rng_state(torch.mps.get_rng_state())


def tensors() -> None:
    x = torch.ones(300, device="mps")
    y = x[10:20].view(2, 5).t().contiguous()
    y.resize_(40)
    y.set_(x.untyped_storage(), 3, (4,))
    torch.add(x, x, out=torch.empty(0, device="mps"))
    x.to("cpu").to("mps", non_blocking=True).half()
    torch._foreach_add([x, y], 1)
    x.data = y
    torch.from_dlpack(y)


def storages() -> None:
    storage = torch.UntypedStorage(100, device="mps")
    alias = torch.mps._host_alias_storage(storage)
    del storage
    alias.fill_(1)
    x = torch.ones(4, device="mps")
    copy.deepcopy(x)
    pickle.loads(pickle.dumps(x))


def graphs() -> None:
    x = torch.ones(4, 4, device="mps", requires_grad=True)
    y = F.layer_norm(x, (4,)).softmax(-1) @ x
    (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    first.sum().backward()
    (x * 2).exp()  # a graph that is never run backwards


def refused() -> None:
    x = torch.ones(4, device="mps")
    for attempt in (
        lambda: x.double(),
        lambda: x + torch.ones(4),
        lambda: torch.empty(1 << 60, device="mps"),
        lambda: x.numpy(),
        lambda: x.view(3),
        lambda: torch.mps.Event().elapsed_time(torch.mps.Event()),
    ):
        with pytest.raises((TypeError, RuntimeError)):
            attempt()


def thread() -> None:
    worker = threading.Thread(target=graphs)
    worker.start()
    worker.join()


def resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


@pytest.mark.parametrize(
    ("cycle", "times"),
    [
        (events, 20 * CYCLES),
        (streams_and_generators, CYCLES),
        (tensors, CYCLES),
        (storages, CYCLES),
        (graphs, CYCLES),
        (refused, CYCLES // 10),
        (thread, CYCLES // 10),
    ],
)
def test_nothing_is_left(device: Device, cycle: Callable[[], None], times: int) -> None:
    """Device memory and its blocks end where they began, no Python objects stay, and the process does not grow."""
    for _ in range(times // 5):  # caches and pools fill
        cycle()
    gc.collect()
    grown = []
    for _ in range(3):  # what is lost is lost each time; the allocator's own growth is not
        before, objects, size = device.memory(), len(gc.get_objects()), resident()
        for _ in range(times):
            cycle()
        gc.collect()
        after = device.memory()
        assert (after.current, after.blocks) == (before.current, before.blocks)
        assert len(gc.get_objects()) - objects < times / 20
        grown.append(resident() - size)
        if grown[-1] < 1 << 20:
            break
    # The number of cycles is such that one lost event (3 a cycle, 60 bytes) or generator (5 KB) would be 3 MB and more.
    assert min(grown) < 1 << 20


def test_modules_and_optimizers_go_away(device: Device) -> None:
    """A model with its gradients, optimizer state and hooks frees everything when it goes, cycles included."""
    before = device.memory()
    for _ in range(20):
        model = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8)).to("mps")
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        model.register_forward_hook(lambda *arguments, model=model: None)
        with torch.autocast("mps", dtype=torch.bfloat16):
            model(torch.ones(2, 8, device="mps")).sum().backward()
        optimizer.step()
    del model, optimizer
    gc.collect()
    after = device.memory()
    assert (after.current, after.blocks) == (before.current, before.blocks)
