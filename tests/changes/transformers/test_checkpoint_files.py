"""What the files of a model must be."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch

from patcher.errors import CheckpointDamaged
from patcher.replacements.transformers import checkpoint_files as files


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
