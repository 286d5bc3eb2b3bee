"""Memory of the simulated device: exact bytes, results adopted without a copy, a Mac's allocator and its limit."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from patcher.macs.mac import max_buffer_bytes, parse
from patcher.simulator import Device
from tests.simulator.conftest import TORCH

MIB = 2**20
GIB = 2**30


@pytest.fixture
def tidy(unlimited: Device) -> Device:
    """No heap is left of the tests before but those that something lies in which they left alive."""
    gc.collect()
    torch.mps.empty_cache()
    unlimited.reset_peak()
    return unlimited


STEP = 256 if TORCH == "2.13" else MIB // 2
"""What a tensor of 20 MiB and a byte is rounded up to."""


def byte_tensor(size: int) -> torch.Tensor:
    """Without touching the memory: the host gives pages only to what is written."""
    return torch.empty(size, dtype=torch.uint8, device="mps")


def test_current_bytes_are_those_of_the_live_storages(device: Device) -> None:
    """Allocation, views and release change the count by exactly the storage's size."""
    gc.collect()
    before = device.memory().current
    x = torch.empty(1000, device="mps")
    assert device.memory().current == before + 4000
    view = x[10:20].view(2, 5)
    assert device.memory().current == before + 4000
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


def test_torch_reports_buffers_and_heaps(tidy: Device) -> None:
    """What tensors asked for, their rounded buffers, and the heap that stays until the cache is emptied."""
    before = tidy.memory()
    x = byte_tensor(20 * MIB + 1)
    now = tidy.memory()
    assert now.current - before.current == 20 * MIB + 1
    assert torch.mps.current_allocated_memory() == now.allocated == before.allocated + 20 * MIB + STEP
    assert torch.mps.driver_allocated_memory() == now.driver == now.reserved
    assert now.driver - before.driver in (0, GIB)  # 0 where an older tensor's heap has room
    assert now.cached == now.driver - now.allocated
    del x
    after = tidy.memory()
    assert (after.allocated, after.driver, after.cached_buffers) == (
        before.allocated,
        now.driver,
        before.cached_buffers + 1,
    )
    assert (after.peak_allocated, after.peak_driver) == (now.allocated, now.driver)
    torch.mps.empty_cache()
    assert (tidy.memory().driver, tidy.memory().cached_buffers) == (before.driver, before.cached_buffers)
    tidy.reset_peak()
    assert tidy.memory().peak_reserved == before.driver


def test_accelerator_memory_functions_agree(tidy: Device) -> None:
    """`torch.accelerator` reports the allocator's figures, peaks too, and of its other statistics none, as torch."""
    kept = byte_tensor(1000)
    before = tidy.memory()
    torch.accelerator.reset_peak_memory_stats()
    gone = byte_tensor(30 * MIB)
    del gone
    memory = tidy.memory()
    assert torch.accelerator.memory_allocated() == memory.allocated
    assert torch.accelerator.max_memory_allocated() == memory.peak_allocated >= memory.allocated + 30 * MIB
    assert torch.accelerator.memory_reserved() == memory.driver
    assert torch.accelerator.max_memory_reserved() == memory.peak_driver
    free, total = torch.accelerator.get_memory_info()
    assert total == torch.mps.recommended_max_memory() and total - free == memory.driver
    stats = torch.accelerator.memory_stats()
    torch.accelerator.reset_accumulated_memory_stats()
    assert stats["allocated_bytes.all.allocated"] > 0 == stats["num_ooms"] == stats["segment.all.current"]
    assert torch.accelerator.memory_stats()["allocated_bytes.all.allocated"] == 0
    torch.accelerator.empty_cache()
    assert (tidy.memory().heaps, tidy.memory().cached_buffers) == (before.heaps, before.cached_buffers)
    del kept


def test_an_8_gb_mac_runs_out_where_arithmetic_says(tidy: Device) -> None:
    """1.7 times its working set of 5.33 GiB holds 9 tensors of 1 GiB; the words are torch's; then it goes on."""
    tidy.become(parse("M1 8GB", tidy.torch))
    memory = tidy.memory()
    assert memory.limit == int(1.7 * torch.mps.recommended_max_memory()) == int(1.7 * 5726633984)
    room = (memory.limit - memory.driver) // GIB
    held = [byte_tensor(GIB) for _ in range(room)]
    driver = memory.driver + room * GIB
    assert tidy.memory().driver == driver
    with pytest.raises(RuntimeError) as caught:
        byte_tensor(GIB)
    assert str(caught.value).split("\n")[0] == (
        f"MPS backend out of memory (MPS allocated: {driver / GIB:.2f} GiB, other allocations: 0 bytes,"
        " max allowed: 9.07 GiB). Tried to allocate 1024.00 MiB on shared pool."
        " Use PYTORCH_MPS_HIGH_WATERMARK_RATIO=0.0 to disable upper limit for memory allocations"
        " (may cause system failure)."
    )
    assert tidy.memory().refused == memory.refused + 1
    del held[-3:]
    held.append(byte_tensor(1536 * MIB))  # two of the three cached buffers go for it
    assert tidy.memory().driver == driver - 512 * MIB
    assert tidy.memory().cached_buffers == memory.cached_buffers + 1
    held.clear()
    torch.mps.empty_cache()
    assert tidy.memory().driver == memory.driver
    assert byte_tensor(3 * GIB).nbytes == 3 * GIB


def test_a_model_that_is_too_long_for_8_gb_fits_into_36(tidy: Device) -> None:
    """The 291 weights of a Llama with 6.74e9 parameters in bf16: 12.55 GiB, against limits of 9.07 and 45.9 GiB."""
    layer = [(4096, 4096)] * 4 + [(11008, 4096)] * 2 + [(4096, 11008), (4096,), (4096,)]
    shapes = [(32000, 4096), *(layer * 32), (4096,), (32000, 4096)]

    def load() -> list[torch.Tensor]:
        return [torch.empty(shape, dtype=torch.bfloat16, device="mps") for shape in shapes]

    weights = load()
    held = sum(weight.nbytes for weight in weights)
    assert round(held / GIB, 2) == 12.55 and held < tidy.memory().driver < held + 1.5 * GIB
    del weights
    torch.mps.empty_cache()
    tidy.become(parse("M2 8GB", tidy.torch))
    with pytest.raises(RuntimeError, match=r"out of memory .* max allowed: 9.07 GiB"):
        load()


def test_limit_holds_for_results_of_kernels(tidy: Device) -> None:
    """A result that does not fit is refused, and its memory is given back."""
    x = torch.ones(4 * MIB, device="mps")
    base = tidy.memory()
    tidy._native.set_memory_limits(base.driver, GIB, 1.0, 0.0)
    with pytest.raises(RuntimeError, match=r"MPS backend out of memory .* Tried to allocate 16.00 MiB"):
        x + 1
    assert tidy.memory().current == base.current and tidy.memory().allocated == base.allocated


def test_one_tensor_is_not_longer_than_a_metal_buffer(tidy: Device) -> None:
    """Metal's buffers end at three quarters of the working set: 4 GiB on an 8 GB Mac."""
    mac = parse("M1 8GB", tidy.torch)
    tidy.become(mac)
    assert max_buffer_bytes(mac.memory_bytes) == 4 * GIB
    with pytest.raises(RuntimeError, match=r"Invalid buffer size: 4.00 GiB"):
        byte_tensor(4 * GIB)
    assert byte_tensor(4 * GIB - 1).nbytes == 4 * GIB - 1


def test_memory_fraction_is_a_share_of_the_recommended_maximum(unlimited: Device) -> None:
    """`set_per_process_memory_fraction` sets the limit; 0 removes it."""
    recommended = torch.mps.recommended_max_memory()
    assert recommended == 27 * 2**30  # three quarters of 36 GB
    assert unlimited.memory().limit == int(1.7 * recommended)
    torch.mps.set_per_process_memory_fraction(0.5)
    assert unlimited.memory().limit == recommended // 2
    torch.mps.set_per_process_memory_fraction(0.0)
    assert unlimited.memory().limit == 0


def test_watermarks_are_read_from_the_environment(unlimited: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are multiples of the recommended maximum; what is no number is refused at once."""
    from patcher.errors import InvalidSwitch

    monkeypatch.setenv("PYTORCH_MPS_HIGH_WATERMARK_RATIO", "0.0")
    monkeypatch.setenv("PYTORCH_MPS_LOW_WATERMARK_RATIO", "1.9")
    unlimited.become(unlimited.mac)
    assert unlimited.memory().limit == 0 and byte_tensor(1).nbytes == 1
    monkeypatch.setenv("PYTORCH_MPS_HIGH_WATERMARK_RATIO", "plenty")
    with pytest.raises(InvalidSwitch, match="plenty"):
        unlimited.become(unlimited.mac)


@pytest.mark.parametrize(
    ("high", "low", "words"),
    [
        ("0.9", None, "invalid low watermark ratio 1.4"),  # torch's own default of the other one
        ("1.2", "1.3", "invalid low watermark ratio 1.3"),
        ("2.5", "1.0", "invalid high watermark ratio 2.5"),
        ("nan", "1.0", "invalid high watermark ratio nan"),
    ],
)
def test_watermarks_that_do_not_fit_stop_the_first_tensor(
    unlimited: Device, monkeypatch: pytest.MonkeyPatch, high: str, low: str | None, words: str
) -> None:
    """In torch's words, when its allocator would start, and again with every tensor."""
    monkeypatch.setenv("PYTORCH_MPS_HIGH_WATERMARK_RATIO", high)
    if low is not None:
        monkeypatch.setenv("PYTORCH_MPS_LOW_WATERMARK_RATIO", low)
    unlimited.become(unlimited.mac)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=words):
            torch.ones(1, device="mps")
    monkeypatch.undo()
    unlimited.become(unlimited.mac)
    assert torch.ones(1, device="mps").item() == 1


def test_threads_share_one_account(tidy: Device) -> None:
    """Tensors made and released on four threads at once leave nothing behind."""
    before = tidy.memory()

    def work(seed: int) -> None:
        torch.manual_seed(seed)
        kept = []
        for step in range(200):
            kept.append(torch.empty(1 + seed * 1000 + step * 37, device="mps"))
            if len(kept) > 8:
                kept.pop(step % 8)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    gc.collect()
    after = tidy.memory()
    assert (after.current, after.blocks, after.allocated) == (before.current, before.blocks, before.allocated)


def test_pinned_memory_is_device_memory_under_the_cpus_name(tidy: Device) -> None:
    """`pin_memory()` gives a CPU tensor with `is_pinned()`, in a buffer of the device, as on a Mac."""
    before = tidy.memory()
    pinned = torch.arange(3.0).pin_memory()
    assert pinned.is_pinned() and pinned.device.type == "cpu"
    assert tidy.memory().allocated == before.allocated + 256
    assert not torch.arange(3.0).is_pinned()
    assert pinned.to("mps", non_blocking=True).tolist() == [0.0, 1.0, 2.0]
    del pinned
    assert tidy.memory().allocated == before.allocated
