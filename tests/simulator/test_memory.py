"""Memory of the simulated device: exact bytes, results adopted without a copy, the Mac's limit."""

from __future__ import annotations

import gc

import pytest
import torch

from patcher.simulator import Device

MIB = 2**20


def test_current_bytes_are_those_of_the_live_storages(device: Device) -> None:
    """Allocation, views and release change the count by exactly the storage's size."""
    gc.collect()
    before = device.memory().current
    x = torch.empty(1000, device="mps")
    assert device.memory().current == before + 4000
    view = x[10:20].view(2, 5)
    assert device.memory().current == before + 4000
    assert torch.mps.current_allocated_memory() == before + 4000
    del x
    assert device.memory().current == before + 4000
    del view
    assert device.memory().current == before


def test_peak_is_inputs_plus_result_without_a_copy(device: Device) -> None:
    """A CPU kernel's result is taken over: the peak holds it once, and its memory is the kernel's own."""
    gc.collect()
    x = torch.ones(MIB // 4, device="mps")
    device.reset_peak()
    base = device.memory().current
    y = x + 1
    assert device.memory().peak == base + MIB
    del y
    assert device.memory().current == base
    assert device.memory().peak == base + MIB
    device.reset_peak()
    assert device.memory().peak == base


def test_in_place_and_out_allocate_nothing(device: Device) -> None:
    """`x.add_()` and `out=` write into the memory that is there."""
    x, out = torch.ones(64, device="mps"), torch.empty(64, device="mps")
    address = x.data_ptr(), out.data_ptr()
    device.reset_peak()
    base = device.memory().peak
    x.add_(1)
    torch.add(x, x, out=out)
    assert (x.data_ptr(), out.data_ptr()) == address
    assert device.memory().peak == base
    assert out.tolist() == [4.0] * 64


def test_resized_out_is_accounted(device: Device) -> None:
    """An `out=` tensor that a kernel grows takes over the new memory; the old is given back."""
    gc.collect()
    base = device.memory().current
    out = torch.empty(0, device="mps")
    torch.mm(torch.ones(8, 4, device="mps"), torch.ones(4, 8, device="mps"), out=out)
    assert out.shape == (8, 8)
    assert device.memory().current == base + 8 * 8 * 4
    assert out.sum().item() == 256.0
    del out
    assert device.memory().current == base


def test_going_over_the_limit_raises_in_the_words_of_torch(unlimited: Device) -> None:
    """The message is MPSAllocator's, which scripts search for, and nothing is left allocated."""
    base = unlimited.memory().current
    unlimited._native.set_memory_limit(base + 4 * MIB, 1.0)
    with pytest.raises(RuntimeError) as caught:
        torch.empty(8 * MIB, dtype=torch.uint8, device="mps")
    text = str(caught.value)
    assert text.startswith("MPS backend out of memory (MPS allocated: ")
    assert "Tried to allocate 8.00 MiB on private pool. Use PYTORCH_MPS_HIGH_WATERMARK_RATIO=0.0 to disable" in text
    assert unlimited.memory().current == base
    torch.empty(2 * MIB, dtype=torch.uint8, device="mps")


def test_limit_holds_for_results_of_kernels(unlimited: Device) -> None:
    """A result that does not fit is refused, and its memory is given back."""
    x = torch.ones(MIB, device="mps")
    base = unlimited.memory().current
    unlimited._native.set_memory_limit(base + MIB, 1.0)
    with pytest.raises(RuntimeError, match="MPS backend out of memory"):
        x + 1
    assert unlimited.memory().current == base


def test_memory_fraction_is_a_share_of_the_recommended_maximum(unlimited: Device) -> None:
    """`set_per_process_memory_fraction` sets the limit; 0 removes it."""
    recommended = torch.mps.recommended_max_memory()
    assert recommended == 27 * 2**30  # three quarters of 36 GB
    assert unlimited.memory().limit == int(1.7 * recommended)
    torch.mps.set_per_process_memory_fraction(0.5)
    assert unlimited.memory().limit == recommended // 2
    torch.mps.set_per_process_memory_fraction(0.0)
    assert unlimited.memory().limit == 0


def test_high_watermark_is_read_from_the_environment(unlimited: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """PYTORCH_MPS_HIGH_WATERMARK_RATIO is the limit as a multiple of the recommended maximum."""
    from patcher.errors import InvalidSwitch

    monkeypatch.setenv("PYTORCH_MPS_HIGH_WATERMARK_RATIO", "0.0")
    unlimited.become(unlimited.mac)
    assert unlimited.memory().limit == 0
    monkeypatch.setenv("PYTORCH_MPS_HIGH_WATERMARK_RATIO", "plenty")
    with pytest.raises(InvalidSwitch, match="plenty"):
        unlimited.become(unlimited.mac)
    monkeypatch.undo()


def test_accelerator_memory_functions_agree(device: Device) -> None:
    """`torch.accelerator` reports the same bytes as the device."""
    kept = torch.ones(1024, device="mps")
    torch.accelerator.reset_peak_memory_stats()
    assert torch.accelerator.memory_allocated() == device.memory().current
    assert torch.accelerator.max_memory_allocated() == device.memory().peak
    free, total = torch.accelerator.get_memory_info()
    assert total - free == device.memory().current
    assert torch.accelerator.memory_stats()["num_ooms"] >= 0
    torch.accelerator.empty_cache()
    del kept


def test_pinned_memory_is_cpu_memory_that_knows_it() -> None:
    """`pin_memory()` gives a CPU tensor with `is_pinned()`, as on a Mac."""
    pinned = torch.arange(3.0).pin_memory()
    assert pinned.is_pinned() and pinned.device.type == "cpu"
    assert not torch.arange(3.0).is_pinned()
    assert pinned.to("mps", non_blocking=True).tolist() == [0.0, 1.0, 2.0]
