"""What trials told is kept for this machine; what could not be tried is tried again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from patcher import surroundings
from patcher.environment import WITHOUT
from patcher.ops.variants import findings, trial
from patcher.ops.variants.findings import Finding

HERE = ("Apple M1", "macOS-15.5", "2.14.0")


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What was tried; every variant is right, and takes a second."""
    names: list[str] = []

    def wrong(variant: str, op: str, dtype: torch.dtype) -> str:
        names.append(f"{variant} {op} {dtype}")
        return ""

    monkeypatch.setenv("PATCHER_TRITON_CACHE", "1")
    monkeypatch.setenv("PATCHER_CACHE", str(tmp_path))
    monkeypatch.delenv(WITHOUT, raising=False)
    monkeypatch.setattr(surroundings, "machine", lambda: HERE)
    monkeypatch.setattr(findings.sys, "platform", "darwin")
    monkeypatch.setattr(trial, "wrong", wrong)
    monkeypatch.setattr(trial, "seconds", lambda variant, op, dtype: {"128": 1.0})
    return names


def test_a_trial_is_kept(tried: list[str], tmp_path: Path) -> None:
    """One file for each op and type."""
    first = findings.of("rms_norm", torch.float16)
    assert first == findings.of("rms_norm", torch.float16)
    assert first == {"torch": Finding("", {"128": 1.0}), "metal": Finding("", {"128": 1.0})}
    findings.of("rms_norm", torch.float32)
    assert tried == ["metal rms_norm torch.float16", "metal rms_norm torch.float32"]
    assert len(list((tmp_path / "variants").iterdir())) == 2


@pytest.mark.parametrize("changed", ["torch", "the package", "a variable"])
def test_elsewhere_it_is_tried_anew(tried: list[str], monkeypatch: pytest.MonkeyPatch, changed: str) -> None:
    """What holds for one torch, source and variable holds for no other."""
    findings.of("rms_norm", torch.float16)
    if changed == "torch":
        monkeypatch.setattr(surroundings, "machine", lambda: (*HERE[:2], "2.15.0"))
    elif changed == "the package":
        monkeypatch.setattr(surroundings, "package", lambda: b"another")
    else:
        monkeypatch.setenv("PYTORCH_MPS_FAST_MATH", "1")
    findings.of("rms_norm", torch.float16)
    assert len(tried) == 2


@pytest.mark.parametrize("content", [None, {}, {"metal": {}}, {"metal": 1}, [1], "damaged"])
def test_what_is_damaged_says_nothing(tried: list[str], tmp_path: Path, content: Any) -> None:
    """It is tried again."""
    findings.of("rms_norm", torch.float16)
    (place,) = (tmp_path / "variants").iterdir()
    findings.kept.write(place, content, 9)
    if content == "damaged":
        place.write_text(json.dumps({"content": content})[:-2])
    assert findings.of("rms_norm", torch.float16)["metal"] == Finding("", {"128": 1.0})


def test_a_wrong_variant_is_not_timed_and_stays_wrong(tried: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """In the next process too, which tries nothing."""
    with monkeypatch.context() as patch:
        patch.setattr(trial, "wrong", lambda *_: "y: 3 are off")
        assert findings.of("rms_norm", torch.float16)["metal"] == Finding("y: 3 are off")
    assert findings.of("rms_norm", torch.float16)["metal"] == Finding("y: 3 are off") and tried == []


def test_what_could_not_be_tried_is_not_kept(tried: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No calibration, no Metal; the next process tries again."""

    def failing(*_: object) -> str:
        raise RuntimeError("no memory\nand more")

    monkeypatch.setattr(trial, "wrong", failing)
    found = findings.of("rms_norm", torch.float16)["metal"]
    assert found.wrong == "it could not be tried: RuntimeError: no memory" and not (tmp_path / "variants").exists()


def test_modes_see_nothing_of_a_trial(tried: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Selective checkpointing keeps what it sees, and hands it on in the order in which it saw it."""
    seen = []

    class Looking(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(func)
            return func(*args, **kwargs or {})

    monkeypatch.setattr(findings.sys, "platform", "linux")
    monkeypatch.setattr(trial, "wrong", lambda *_: str(torch.ones(2) @ torch.ones(2)))
    with Looking():
        assert findings.of("rms_norm", torch.float16)["metal"].wrong == "tensor(2.)"
        assert seen == []
        torch.ones(1)
    assert seen


def test_on_a_simulated_mac_nothing_is_timed(tried: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs shaders thread by thread."""
    monkeypatch.setattr(findings.sys, "platform", "linux")
    assert findings.of("rms_norm", torch.float16) == {"torch": Finding(), "metal": Finding()}


def test_what_is_left_out_is_not_tried(tried: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch remains."""
    monkeypatch.setenv(WITHOUT, "metal")
    assert list(findings.of("rms_norm", torch.float16)) == ["torch"] and tried == []


def test_the_cache_can_be_switched_off(tried: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """PATCHER_TRITON_CACHE=0 reads and keeps nothing."""
    monkeypatch.setenv("PATCHER_TRITON_CACHE", "0")
    findings.of("rms_norm", torch.float16)
    assert not (tmp_path / "variants").exists()
