"""Storages, pickling, saving and loading."""

from __future__ import annotations

import copy
import inspect
import io
import pickle

import pytest
import torch


def reload(value: object, **keywords: object) -> object:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return torch.load(buffer, **keywords)


def test_untyped_storage_on_mps() -> None:
    """A CPU build of torch says "Storage device not recognized" here."""
    storage = torch.UntypedStorage(8, device="mps")
    assert storage.device == torch.device("mps:0") and storage.nbytes() == 8
    assert torch.UntypedStorage(8, device=torch.device("mps", 0)).device.type == "mps"
    assert torch.UntypedStorage(4).device.type == "cpu"
    assert torch.UntypedStorage(4, device="cpu").device.type == "cpu"
    assert [*inspect.signature(torch.UntypedStorage).parameters] == ["args", "kwargs"]  # what torch itself says


def test_storages_move_and_copy() -> None:
    """`storage.mps()`, `.cpu()`, `.clone()`, `.copy_()` and typed storages."""
    source = torch.arange(4, dtype=torch.uint8).untyped_storage()
    on_mps = source.mps()
    assert on_mps.device.type == "mps" and on_mps.mps() is on_mps
    assert list(on_mps.cpu()) == [0, 1, 2, 3] == list(on_mps.clone().cpu())
    on_mps.fill_(7)
    assert list(on_mps.cpu()) == [7, 7, 7, 7]
    typed = torch.arange(3.0, device="mps")._typed_storage()
    assert typed._untyped_storage.device.type == "mps" and typed.dtype == torch.float32


def test_pickle_and_deepcopy_stay_on_mps() -> None:
    """Tensors, parameters and modules come back on mps with their memory unshared."""
    x = torch.arange(3.0, device="mps").requires_grad_()
    for again in (pickle.loads(pickle.dumps(x)), copy.deepcopy(x)):
        assert again.device.type == "mps" and again.requires_grad and again.tolist() == [0.0, 1.0, 2.0]
        assert again.data_ptr() != x.data_ptr()
    module = copy.deepcopy(torch.nn.Linear(2, 2).to("mps"))
    assert module.weight.device.type == "mps"


def test_save_and_load_keep_the_device() -> None:
    """`torch.load` puts a tensor where it was saved, or where `map_location` says."""
    x = torch.arange(6.0, device="mps").view(2, 3)
    both = reload({"x": x, "t": x.t(), "cpu": torch.ones(1)})
    assert isinstance(both, dict)
    assert both["x"].device.type == "mps" and both["cpu"].device.type == "cpu"
    assert torch.equal(both["x"], x) and both["t"].stride() == (1, 3)
    assert both["t"].data_ptr() == both["x"].data_ptr()
    assert reload(x, map_location="cpu").device.type == "cpu"
    assert reload(torch.ones(2), map_location="mps").device.type == "mps"
    assert reload(torch.ones(2), map_location=torch.device("mps")).tolist() == [1.0, 1.0]


def test_safetensors_load_onto_mps(tmp_path: object) -> None:
    """safetensors reads straight into the device's memory."""
    safetensors = pytest.importorskip("safetensors.torch")
    path = f"{tmp_path}/x.safetensors"
    safetensors.save_file({"x": torch.arange(4.0)}, path)
    loaded = safetensors.load_file(path, device="mps")["x"]
    assert loaded.device.type == "mps" and loaded.tolist() == [0.0, 1.0, 2.0, 3.0]


def test_host_alias_is_the_same_memory() -> None:
    """`torch.mps._host_alias_storage` shows the bytes on the CPU and keeps them alive."""
    x = torch.zeros(2, device="mps")
    alias = torch.mps._host_alias_storage(x.untyped_storage())
    torch.empty(0).set_(alias).fill_(3.0)
    assert alias.device.type == "cpu" and x.tolist() == [3.0, 3.0]
    del x
    assert torch.empty(0).set_(alias).tolist() == [3.0, 3.0]
    with pytest.raises(ValueError, match="getHostAliasStorage: expected an MPS storage, got device=cpu"):
        torch.mps._host_alias_storage(torch.zeros(2).untyped_storage())
