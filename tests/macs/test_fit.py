"""Where a model goes, whether it fits, and what its files must be; in plain functions, without loading one."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from patcher.engine.ledger import Ledger
from patcher.errors import CheckpointDamaged, InvalidSwitch, ModelDoesNotFit
from patcher.macs import fit
from patcher.replacements.accelerate import modeling as accelerate_modeling
from patcher.replacements.torch import mps as torch_mps
from patcher.replacements.transformers import checkpoint_files as files
from patcher.replacements.transformers import core_model_loading as loading
from patcher.replacements.transformers.device_map import memory_by_place, on_mps
from tests.machines import M3_MAX

GIB = 2**30
EIGHT_BILLION = fit.Need(weights=16 * GIB, parameters=8_000_000_000, dtype="bfloat16", nf4=5 * GIB)


@pytest.mark.parametrize(
    ("place", "lands"),
    [
        *((place, "mps") for place in (0, 1, "cuda", "cuda:0", "mps", "mps:0")),
        *((torch.device(place), "mps") for place in ("cuda", "cuda:1", "mps")),
        *((place, place) for place in ("cpu", "disk", "meta", -1, torch.device("cpu"), None, "auto", False)),
    ],
)
def test_every_name_of_a_gpu_is_mps(place: Any, lands: Any) -> None:
    """Numbers and CUDA's names; what is no GPU stays."""
    assert on_mps(place) == lands


def test_budgets_of_several_gpus_are_one() -> None:
    """max_memory of a CUDA script: its GPUs' budgets add up; the CPU's and the disk's stay."""
    given = {0: "1GB", 1: 5, "cuda:2": "1GiB", "cpu": "30GB"}
    assert memory_by_place(given) == {"mps": 10**9 + 5 + 2**30, "cpu": 30 * 10**9}


def test_accelerate_divides_what_torch_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """infer_auto_device_map and its kin: torch's limit for mps where nothing is said, else the script's budgets."""
    asked: list[Any] = []
    found = {"mps": 10**12, "disk": 5}
    monkeypatch.setattr(
        accelerate_modeling, "original", lambda target: lambda *given: asked.append(given) or dict(found)
    )
    monkeypatch.setattr(accelerate_modeling, "limit", lambda: fit.Limit(ratio=0.5, recommended=100, taken=10))
    assert accelerate_modeling.get_max_memory() == {"mps": 40, "disk": 5}
    monkeypatch.setattr(accelerate_modeling, "limit", lambda: fit.Limit(ratio=0, recommended=100, taken=10))
    assert accelerate_modeling.get_max_memory() == found
    accelerate_modeling.get_max_memory({0: "1KB", "cpu": 7})
    given = {"mps": "1KB"}
    accelerate_modeling.get_max_memory(given)
    assert asked == [(), (), ({"mps": 1000, "cpu": 7},), (given,)] and asked[-1][0] is given


@pytest.mark.parametrize(("over", "refused"), [(0, False), (1, True)])
def test_one_byte_decides(over: int, refused: bool) -> None:
    """Weights of exactly what the limit leaves are let through; one byte more is refused, and the text says why."""
    limit = fit.Limit(ratio=0.5, recommended=20 * GIB, taken=2 * GIB)
    need = fit.Need(weights=8 * GIB + over, parameters=4 * GIB, dtype="bfloat16", nf4=3 * GIB)
    if not refused:
        return fit.check("m", need, limit, M3_MAX)
    with pytest.raises(ModelDoesNotFit) as raised:
        fit.check("m", need, limit, M3_MAX)
    for text in ("8.00 GiB", "0.5 times the 20.00 GiB", "2.00 GiB of it", "load_in_4bit=True", "3.00 GiB", str(M3_MAX)):
        assert text in str(raised.value), text
    return None


@pytest.mark.parametrize(
    ("ratio", "free", "text"),
    [
        (1.2, 6.4, "pass load_in_4bit=True, with which they take 5.00 GiB; or take a model with at most 3.2 billion"),
        (0.9, 4.8, "take a smaller model: even with load_in_4bit=True this one takes 5.00 GiB; or use a Mac with"),
    ],
)
def test_what_would_fit_fits(ratio: float, free: float, text: str) -> None:
    """8 billion parameters on 8 GB: in 4 bit where that fits, a smaller model, and the smallest Mac that holds them."""
    limit = fit.Limit(ratio=ratio, recommended=int(free / ratio * GIB), taken=0)
    with pytest.raises(ModelDoesNotFit) as raised:
        fit.check("m", EIGHT_BILLION, limit, M3_MAX)
    assert text in str(raised.value)
    # Two thirds of 16 and of 24 GB are 10.67 and 16 GiB: at 1.2 the latter holds 16 GiB, at 0.9 only 32 GB do.
    assert f"at least {24 if ratio == 1.2 else 32} GB" in str(raised.value)


def test_no_limit_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ratio of 0 is no limit; PATCHER_CHECK_FIT=0 lets torch decide; another text than yes or no is an error."""
    fit.check("m", EIGHT_BILLION, fit.Limit(0, GIB, 0), M3_MAX)
    monkeypatch.setenv("PATCHER_CHECK_FIT", "0")
    fit.check("m", EIGHT_BILLION, fit.Limit(1, GIB, 0), M3_MAX)
    monkeypatch.setenv("PATCHER_CHECK_FIT", "maybe")
    with pytest.raises(InvalidSwitch):
        fit.check("m", EIGHT_BILLION, fit.Limit(1, GIB, 0), M3_MAX)


@pytest.mark.parametrize(("variable", "asked", "ratio"), [(None, None, 1.7), ("0.8", None, 0.8), ("0.8", 1.5, 1.5)])
def test_the_limit_is_the_users(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, asked: float | None, ratio: float
) -> None:
    """torch's default, the user's watermark, and set_per_process_memory_fraction, which overrides both."""
    monkeypatch.delenv("PYTORCH_MPS_HIGH_WATERMARK_RATIO", raising=False)
    if variable is not None:
        monkeypatch.setenv("PYTORCH_MPS_HIGH_WATERMARK_RATIO", variable)
    for name in ("recommended_max_memory", "current_allocated_memory"):
        monkeypatch.setattr(torch.mps, name, lambda: 100)
    monkeypatch.setattr(torch_mps, "_keeps_statistics", lambda: False)
    told: list[float] = []
    monkeypatch.setattr(torch_mps, "original", lambda target: told.append)
    monkeypatch.setattr(torch_mps, "LEDGER", Ledger())
    if asked is not None:
        torch_mps.set_per_process_memory_fraction(asked)
        assert told == [asked]
    assert torch_mps.limit() == fit.Limit(ratio, 100, 100)


def test_a_tensor_for_mps_is_read_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread converts on mps; tensors for other devices keep their threads."""
    monkeypatch.setattr(loading, "original", lambda target: lambda pool, *_: pool)
    assert loading.spawn_materialize("pool", "tensor", torch.device("mps"), torch.float32) is None
    assert loading.spawn_materialize("pool", "tensor", "mps:0") is None
    assert loading.spawn_materialize("pool", "tensor", "cpu", torch.float32) == "pool"


def shard(path: Path, size: int = 8) -> Path:
    header = json.dumps({"w": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))
    return path


def test_a_damaged_shard_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Truncated, empty and missing ones in one message; whole ones pass, with what upstream found."""
    whole, short = shard(tmp_path / "a.safetensors"), shard(tmp_path / "b.safetensors", 7)
    empty, missing = tmp_path / "c.bin", tmp_path / "d.safetensors"
    empty.write_bytes(b"")
    half = tmp_path / "e.bin"
    torch.save({"w": torch.zeros(8)}, half)
    half.write_bytes(half.read_bytes()[:100])
    found = ([str(whole), str(short), str(empty), str(missing), str(half)], None)
    monkeypatch.setattr(files, "original", lambda target: lambda **_: found)
    with pytest.raises(CheckpointDamaged) as raised:
        files._get_resolved_checkpoint_files(pretrained_model_name_or_path="some/model")
    message = str(raised.value)
    assert f"{short} has " in message and f"{empty} is empty" in message and f"{half} is truncated" in message
    assert f"{missing} is missing" in message
    assert str(whole) not in message and "some/model" in message and "force_download=True" in message
    found[0][1:] = []
    assert files._get_resolved_checkpoint_files(pretrained_model_name_or_path="some/model") is found


def test_a_broken_index_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """What json says about the index becomes the same error."""
    monkeypatch.setattr(files, "original", lambda target: lambda **_: json.loads("{"))
    with pytest.raises(CheckpointDamaged, match="its index of weight files is no JSON"):
        files._get_resolved_checkpoint_files(pretrained_model_name_or_path="some/model")


def test_sizes_are_of_the_tensors_that_will_be_there() -> None:
    """Tied weights once, other devices not, what 4 bit would take from the linear weights alone."""
    model = torch.nn.ModuleDict({"head": torch.nn.Linear(64, 8), "body": torch.nn.Linear(64, 64, bias=False)}).half()
    model.all_tied_weights_keys = {}  # type: ignore[assignment]
    need = fit.need_of(model, None, {}, frozenset({"body.weight"}))
    assert (need.weights, need.parameters, need.dtype, need.half) == (2 * (64 * 8 + 8 + 64 * 64), 4616, "float16", None)
    assert need.nf4 == 2 * (64 * 8 + 8) + 64 * 64 // 2 + 64 + 4 + 4 + 64 + 1024
    assert fit.need_of(model.float(), None, {}, frozenset()).half == need.weights
    assert fit.need_of(model.half(), None, {"body.weight": "disk"}, frozenset()).weights == 2 * (64 * 8 + 8)
    model.all_tied_weights_keys = {"head.weight": "body.weight"}  # type: ignore[assignment]
    assert fit.need_of(model, None, {}, frozenset()).weights == 2 * (8 + 64 * 64)
    quantizer = SimpleNamespace(
        quantization_config=SimpleNamespace(load_in_8bit=True),
        param_needs_quantization=lambda model, name: name == "body.weight",
        param_element_size=lambda model, name, tensor: 2,
    )
    assert fit.need_of(model, quantizer, {}, frozenset()).weights == 2 * 8 + 64 * 64 + 64 * 4
    assert fit.knows(None) and fit.knows(quantizer)
    assert not fit.knows(SimpleNamespace(quantization_config=SimpleNamespace(quant_method="gptq")))
