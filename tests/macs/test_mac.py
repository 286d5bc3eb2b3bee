"""Reading which Mac to simulate, and what is known of it."""

from __future__ import annotations

import pytest

from patcher.errors import InvalidSwitch
from patcher.macs.mac import CHIPS, GIB, every_mac, max_buffer_bytes, parse, recommended_max_bytes
from tests.process import run_python


@pytest.mark.parametrize(
    ("text", "name", "cores", "gigabytes"),
    [
        ("1", "M3 Max 36GB", 30, 36),
        ("M3 Max 36GB", "M3 Max 36GB", 30, 36),
        ("apple m2 pro, 32 gb", "M2 Pro 32GB", 19, 32),
        ("m1", "M1 8GB", 8, 8),
        ("m1 7 cores", "M1 7-core 8GB", 7, 8),
        ("M2-Ultra 192", "M2 Ultra 192GB", 76, 192),
        ("M3 Max 30-core 96GB", "M3 Max 96GB", 30, 96),
        ("M3 Max 64GB, 40-core GPU", "M3 Max 64GB", 40, 64),
        ("M3 Max 40-core", "M3 Max 48GB", 40, 48),
        ("Apple M4 Pro (16-core GPU), 48 GB", "M4 Pro 16-core 48GB", 16, 48),
    ],
)
def test_text_names_a_mac(text: str, name: str, cores: int, gigabytes: int) -> None:
    """Chip, GPU cores and memory in every usual form; what is not given is the usual one."""
    mac = parse(text)
    assert (mac.name, mac.gpu_cores, mac.memory_bytes) == (name, cores, gigabytes * GIB)
    assert mac.chip.startswith("Apple M")


@pytest.mark.parametrize(
    ("text", "torch", "name"),
    [
        ("M1 8GB", "2.14.1", "M1 8GB"),
        ("M1 8GB, torch 2.14", "2.14.1", "M1 8GB"),
        ("M1 8GB, torch 2.13", "2.13.0", "M1 8GB, torch 2.13"),
        ("M1 8GB, torch 2.15.0", "2.15.0", "M1 8GB, torch 2.15"),
        ("m3 max torch==2.13.0, 64gb", "2.13.0", "M3 Max 64GB, torch 2.13"),
        ("1, torch 2.13", "2.13.0", "M3 Max 36GB, torch 2.13"),
        ("torch 2.13", "2.13.0", "M3 Max 36GB, torch 2.13"),
    ],
)
def test_a_mac_has_a_torch(monkeypatch: pytest.MonkeyPatch, text: str, torch: str, name: str) -> None:
    """That of macos.txt, or the one that the text names, by release or by version; the name means the same Mac."""
    monkeypatch.delenv("PATCHER_SIMULATE_TORCH", raising=False)
    mac = parse(text)
    assert (mac.torch, mac.name) == (torch, name)
    assert parse(mac.name) == mac
    assert parse("M1", torch="2.13.0").torch == "2.13.0"


def test_a_variable_names_the_torch_of_macs_that_name_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """By release or version; the text's own comes first, and names mean the same Mac again."""
    monkeypatch.setenv("PATCHER_SIMULATE_TORCH", "2.13")
    assert [parse(text).torch for text in ("M1", "M1, torch 2.14")] == ["2.13.0", "2.14.1"]
    assert all(parse(parse(text).name) == parse(text) for text in ("M1", "M1, torch 2.14"))
    assert {mac.torch for mac in every_mac()} == {"2.13.0"}
    monkeypatch.setenv("PATCHER_SIMULATE_TORCH", "2.12")
    with pytest.raises(InvalidSwitch, match=r"(?s)found: +PATCHER_SIMULATE_TORCH=2.12.*PATCHER_SIMULATE_TORCH=2.15"):
        parse("M1")


@pytest.mark.parametrize("text", ["M1 8GB, torch 2.12", "M1, torch 2.14.0", "torch", "M1 torch nightly", "torch 3"])
def test_a_torch_that_is_not_known_is_refused(text: str) -> None:
    """With those that are."""
    with pytest.raises(InvalidSwitch, match=r"(?s)cannot have this torch.*expected: +torch 2.13, 2.14, 2.15\n"):
        parse(text)


@pytest.mark.parametrize("text", ["", "M9", "Intel", "M3 Max 36GB extra", "0", "M4 Ultra", "M5 Maximum", "M1 8GB 8GB"])
def test_unknown_macs_are_refused_with_the_list(text: str) -> None:
    """The message lists every chip."""
    with pytest.raises(InvalidSwitch) as caught:
        parse(text)
    assert all(chip in str(caught.value) for chip in CHIPS)


@pytest.mark.parametrize(
    ("text", "sold"),
    [
        ("M3 Max 37GB", "36 GB, 48 GB, 64 GB, 96 GB, 128 GB"),
        ("M3 Max 40-core 36GB", "48 GB, 64 GB, 128 GB"),
        ("M3 Max 38-core", "30, 40"),
    ],
)
def test_what_is_not_sold_is_refused(text: str, sold: str) -> None:
    """The message lists the memory sizes of that GPU, or the GPUs of that chip."""
    with pytest.raises(InvalidSwitch, match=f"one of {sold}\n"):
        parse(text)


def test_every_mac_is_read_back_and_complete() -> None:
    """Each profile has its figures, its sources, and a name that means it alone."""
    macs = every_mac()
    assert len({mac.name for mac in macs}) == len(macs) > 80
    for mac in macs:
        assert parse(mac.name) == mac
        assert mac.sources and all("http" in source for source in mac.sources)
        assert 60e9 < mac.bandwidth < 1e12 and 2e12 < mac.tflops_fp32 <= mac.tflops_fp16 < 80e12
        assert mac.memory_bytes / 2 < mac.recommended_max_bytes < mac.memory_bytes
    assert {mac.memory_bytes // GIB for mac in macs} >= {8, 16, 18, 24, 32, 36, 48, 64, 96, 128, 192, 256, 512}


@pytest.mark.parametrize(
    ("gigabytes", "macos", "working_set", "longest_buffer"),
    [
        (8, (26, 5), 5726633984, 4294967296),
        (16, (13, 7), 11453251584, 8589934592),
        (24, (26, 0), 19069665280, None),
        (36, (26, 0), 30150672384, 22613000192),
        (48, (26, 0), 40200896512, 30150672384),
        (64, (26, 0), 55662788608, 41747087360),
        (128, (26, 0), 115448725504, 86586540032),
        (192, (14, 0), None, 115964116992),
        (256, (15, 0), 223338299392, 167503724544),
    ],
)
def test_limits_are_to_the_byte_what_macs_print(
    gigabytes: int, macos: tuple[int, int], working_set: int | None, longest_buffer: int | None
) -> None:
    """Metal's two limits as MLX's `device_info` showed them on real Macs (`patcher.macs.figures.WORKING_SET`)."""
    if working_set is not None:
        assert recommended_max_bytes(gigabytes * GIB, macos) == working_set
    if longest_buffer is not None:
        assert max_buffer_bytes(gigabytes * GIB, macos) == longest_buffer


def test_profiles_need_no_torch() -> None:
    """Reading a profile and importing the simulator's API import no torch."""
    code = "import sys, patcher.simulator, patcher.macs.mac as m; m.parse('1'); sys.exit('torch' in sys.modules)"
    run_python("-c", code)
