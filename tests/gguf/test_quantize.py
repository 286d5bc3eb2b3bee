"""Files that are written whole or not at all, and what is refused before anything is written."""

from __future__ import annotations

import errno
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import numpy as np
import pytest

from patcher.errors import ExportFailed
from patcher.gguf import quantize as module
from patcher.gguf.policy import Wish

ROWS = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A GGUF file with one matrix and one vector in fp32."""
    writer = gguf.GGUFWriter(tmp_path / "source.gguf", "llama")
    writer.add_block_count(1)
    writer.add_head_count(2)
    writer.add_array("tokenizer.ggml.tokens", ["a", "b"])
    writer.add_tensor("blk.0.attn_q.weight", ROWS)
    writer.add_tensor("blk.0.attn_norm.weight", ROWS[0])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tmp_path / "source.gguf"


def test_a_file_is_quantized_and_keeps_its_metadata(source: Path) -> None:
    """Q8_0 by the package gguf's own formula, the vector and the metadata as they were, the number of the mixture."""
    target = source.with_name("target.gguf")
    assert module.quantize(source, target, Wish("Q8_0"), 2)["blk.0.attn_q.weight"] == "Q8_0"
    reader = gguf.GGUFReader(target)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    expected = gguf.quants.quantize(ROWS, gguf.GGMLQuantizationType.Q8_0)
    assert np.array_equal(tensors["blk.0.attn_q.weight"].data, expected)
    assert np.array_equal(tensors["blk.0.attn_norm.weight"].data, ROWS[0])
    assert reader.get_field("general.file_type").contents() == 7
    assert reader.get_field("tokenizer.ggml.tokens").contents() == ["a", "b"]


def test_every_part_of_a_split_file_is_read(tmp_path: Path) -> None:
    """The result is one file with all tensors; a part that is missing or not the first is named."""
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama", split_max_tensors=2)
    writer.add_block_count(1)
    writer.add_head_count(2)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        writer.add_tensor(f"blk.0.{name}.weight", ROWS * len(name))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    first, second = sorted(tmp_path.glob("m-0*.gguf"))
    target = tmp_path / "target.gguf"
    assert len(module.quantize(first, target, Wish("F16"), 1)) == 4
    reader = gguf.GGUFReader(target)
    for tensor in reader.tensors:
        expected = ROWS * len(tensor.name.split(".")[2])
        assert np.array_equal(tensor.data, expected.astype(np.float16)), tensor.name
    assert len(reader.tensors) == 4 and not [name for name in reader.fields if name.startswith("split.")]
    with pytest.raises(ExportFailed, match="not the first"):
        module.quantize(second, tmp_path / "other.gguf", Wish("F16"), 1)
    second.unlink()
    with pytest.raises(ExportFailed, match=second.name):
        module.quantize(first, tmp_path / "other.gguf", Wish("F16"), 1)


def test_integers_and_another_alignment_are_kept(tmp_path: Path) -> None:
    """Tensors that are no weights stay as they are; the data lies where the metadata says."""
    numbers = np.arange(6 * 32, dtype=np.int32).reshape(6, 32)
    writer = gguf.GGUFWriter(tmp_path / "source.gguf", "llama")
    writer.add_block_count(1)
    writer.add_head_count(2)
    writer.add_custom_alignment(64)
    writer.add_tensor("blk.0.ffn_gate_tid2eid.weight", numbers)
    writer.add_tensor("blk.0.attn_norm.weight", ROWS[0, :10])
    writer.add_tensor("blk.0.attn_q.weight", ROWS)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    target = tmp_path / "target.gguf"
    module.quantize(tmp_path / "source.gguf", target, Wish("F16"), 1)
    found = {tensor.name: tensor.data for tensor in gguf.GGUFReader(target).tensors}
    assert np.array_equal(found["blk.0.ffn_gate_tid2eid.weight"], numbers)
    assert np.array_equal(found["blk.0.attn_norm.weight"], ROWS[0, :10])
    assert np.array_equal(found["blk.0.attn_q.weight"], ROWS.astype(np.float16))


def test_a_full_disk_leaves_what_was_there(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too little room is said before; a write that fails leaves neither a part nor another file under the name."""
    target = source.with_name("target.gguf")
    target.write_bytes(b"before")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(gguf.GGUFWriter, "write_tensor_data", full)
        with pytest.raises(ExportFailed, match="No space left"):
            module.quantize(source, target, Wish("Q8_0"), 1)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(ExportFailed, match="free space"):
        module.quantize(source, target, Wish("Q8_0"), 1)
    assert target.read_bytes() == b"before"
    assert sorted(file.name for file in source.parent.iterdir()) == ["source.gguf", "target.gguf"]


def test_a_damaged_source_and_the_source_as_target_are_refused(source: Path) -> None:
    """By name, with nothing written."""
    with pytest.raises(ExportFailed, match="file that is read"):
        module.quantize(source, source, Wish("Q8_0"), 1)
    cut = source.with_name("cut.gguf")
    for size in (0, 3, 40, 200):
        cut.write_bytes(source.read_bytes()[:size])
        with pytest.raises(ExportFailed, match="no whole GGUF"):
            module.quantize(cut, source.with_name("target.gguf"), Wish("Q8_0"), 1)


def test_a_matrix_of_another_model_and_a_missing_one_are_refused(source: Path) -> None:
    """No file, one that is no importance matrix, one of other sizes, and low bits without: nothing is written."""
    target, importance = source.with_name("target.gguf"), source.with_name("importance.dat")
    name, wide = b"blk.0.attn_q.weight", np.ones(32, dtype="<f4").tobytes()
    for content, message in (
        (None, "no importance matrix"),
        (b"", "no importance matrix"),
        (struct.pack("<ii", 1, len(name)) + name + struct.pack("<ii", 1, 32) + wide, "another model"),
    ):
        if content is not None:
            importance.write_bytes(content)
        with pytest.raises(ExportFailed, match=message):
            module.quantize(source, target, Wish("IQ4_NL", matrix=True), 1, importance)
    with pytest.raises(ExportFailed, match="needs an importance matrix"):
        module.quantize(wider(source), target, Wish("IQ2_XXS"), 1)
    assert not target.exists()


def wider(source: Path) -> Path:
    """A file with one matrix of rows of 256."""
    writer = gguf.GGUFWriter(source.with_name("wider.gguf"), "llama")
    writer.add_block_count(1)
    writer.add_head_count(2)
    writer.add_tensor("blk.0.attn_q.weight", np.ones((2, 256), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return source.with_name("wider.gguf")
