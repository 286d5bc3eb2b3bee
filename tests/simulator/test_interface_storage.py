"""Saving, loading, pickling and sharing: what torch and safetensors do with storages on mps."""

from __future__ import annotations

import copy
import io
import pickle
import textwrap
from collections import OrderedDict
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tests.process import run_python

MAPS: dict[str, tuple[Any, str]] = {
    "none": (None, "mps"),
    "cpu": ("cpu", "cpu"),
    "mps": ("mps", "mps"),
    "mps:0": ("mps:0", "mps"),
    "device": (torch.device("mps"), "mps"),
    "keep": (lambda storage, location: storage, "cpu"),
    "move": (lambda storage, location: storage.mps(), "mps"),
    "dict": ({"mps": "cpu"}, "cpu"),
    "other dict": ({"cuda:0": "mps"}, "mps"),
    "meta": ("meta", "meta"),
}


def checkpoint() -> dict[str, Any]:
    """What training scripts save: weights, a view of them, optimizer state, several dtypes, a scalar."""
    torch.manual_seed(0)
    layer = nn.Linear(3, 2).to("mps")
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 3, device="mps")).sum().backward()
    optimizer.step()
    base = torch.arange(12, device="mps")
    return {
        "model": OrderedDict(layer.state_dict()),
        "optimizer": optimizer.state_dict(),
        "base": base,
        "view": base[2:9:3],
        "half": torch.ones(3, device="mps", dtype=torch.bfloat16),
        "empty": torch.empty(0, 4, device="mps"),
        "parameter": nn.Parameter(torch.ones(2, device="mps")),
        "epoch": 3,
    }


def tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(value) if isinstance(leaf, Tensor)]


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("where", MAPS)
def test_load_puts_tensors_where_map_location_says(where: str, zipped: bool) -> None:
    """In both formats, with and without `weights_only`: device, values, dtypes and shared memory."""
    location, device = MAPS[where]
    saved, file = checkpoint(), io.BytesIO()
    torch.save(saved, file, _use_new_zipfile_serialization=zipped)
    for weights_only in (True, False):
        file.seek(0)
        loaded = torch.load(file, map_location=location, weights_only=weights_only)
        for a, b in zip(tensors(loaded), tensors(saved), strict=True):
            # The step counters of the optimizer are CPU tensors: a dict or no location leaves them where they were.
            stays = b.device.type == "cpu" and (location is None or isinstance(location, dict))
            assert a.device.type == ("cpu" if stays else device)
            assert a.shape == b.shape and a.dtype == b.dtype
            assert device == "meta" or torch.equal(a.cpu(), b.cpu())
        assert loaded["epoch"] == 3 and isinstance(loaded["parameter"], nn.Parameter)
        if device != "meta":
            loaded["base"][2] = 99
            assert loaded["view"][0].item() == 99


def test_mapped_files_and_state_dicts_without_memory(tmp_path: Path) -> None:
    """`mmap=True` copies to mps on load; a model on meta takes the weights over with `assign=True`."""
    saved = checkpoint()
    torch.save(saved, tmp_path / "file.pt")
    for location in (None, "cpu", "mps"):
        loaded = torch.load(tmp_path / "file.pt", mmap=True, map_location=location)
        assert loaded["base"].device.type == (location or "mps") and loaded["view"].tolist() == [2, 5, 8]
    with torch.device("meta"):
        layer = nn.Linear(3, 2)
    layer.load_state_dict(torch.load(tmp_path / "file.pt")["model"], assign=True)
    assert layer.weight.device.type == "mps" and torch.equal(layer.weight, saved["model"]["weight"])
    assert nn.Linear(3, 2, device="meta").to_empty(device="mps").weight.device.type == "mps"
    with pytest.raises(RuntimeError, match="Attempting to deserialize object on a CUDA device"):
        torch.load(tmp_path / "file.pt", map_location="cuda:0")


def test_safetensors_reads_and_writes_mps(tmp_path: Path) -> None:
    """`save_file`, `load_file(device="mps")`, `safe_open` with slices, `save_model`; every dtype that a Mac has."""
    from safetensors import safe_open
    from safetensors.torch import load_file, load_model, save_file, save_model

    file = tmp_path / "a.safetensors"
    values = {
        str(dtype): torch.arange(6, device="mps").view(2, 3).to(dtype)
        for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool)
    }
    save_file({**values, "scalar": torch.tensor(5, device="mps"), "none": torch.empty(0, 2, device="mps")}, file)
    for device in ("mps", "mps:0"):
        loaded = load_file(file, device=device)
        assert loaded["scalar"].item() == 5 and loaded["none"].shape == (0, 2)
        for name, value in values.items():
            assert loaded[name].device == value.device and torch.equal(loaded[name], value)
    with safe_open(file, "pt", device="mps") as opened:
        part = opened.get_slice("torch.float32")[1:, :2]
        assert part.device.type == "mps" and part.tolist() == [[3.0, 4.0]]
    layer, other = nn.Linear(3, 2).to("mps"), nn.Linear(3, 2).to("mps")
    save_model(layer, str(tmp_path / "m.safetensors"))
    load_model(other, tmp_path / "m.safetensors", device="mps")
    assert torch.equal(layer.weight, other.weight)


def test_pickle_and_deepcopy_of_everything() -> None:
    """Generators go through pickle with their state; storages, modules, parameters and devices stay on mps."""
    generator = torch.Generator(device="mps").manual_seed(7)
    generator.set_offset(12)
    torch.randn(5, device="mps", generator=generator)
    place = (7, generator.get_offset())
    assert place > (7, 12)
    for other in (pickle.loads(pickle.dumps(generator)), generator.clone_state()):
        assert other.device.type == "mps" and (other.initial_seed(), other.get_offset()) == place
        state = generator.get_state()
        expected = torch.randn(5, device="mps", generator=generator)
        assert torch.equal(torch.randn(5, device="mps", generator=other), expected)
        generator.set_state(state)
    base = torch.arange(4.0, device="mps")
    whole, view = copy.deepcopy([base, base[1:]])
    whole[1] = 9
    assert view[0].item() == 1 and base[1].item() == 1  # torch clones each mps tensor by itself (Tensor.__deepcopy__)
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)).to("mps")
    assert torch.equal(copy.deepcopy(layer)(base[:2]), layer(base[:2]))
    assert pickle.loads(pickle.dumps(torch.device("mps", 0))) == base.device
    assert copy.deepcopy(base.untyped_storage()).device.type == "mps"


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_storages_know_their_device() -> None:
    """Typed and untyped storages read and write elements; what a Mac's build refuses is refused."""
    storage = torch.UntypedStorage([1, 2, 3], device="mps")
    storage[1] = 7
    assert storage.tolist() == [1, 7, 3] and storage.device == torch.device("mps:0") and storage.nbytes() == 3
    assert storage.fill_(4).tolist() == [4, 4, 4] and storage.data_ptr() != 0
    typed = torch.TypedStorage([1.0, 2.0], dtype=torch.float32, device="mps")
    assert typed.tolist() == [1.0, 2.0] and typed.is_shared() and typed.share_memory_() is typed
    assert torch.tensor([], device="mps").set_(typed).tolist() == [1.0, 2.0]  # type: ignore[call-overload]
    with pytest.raises(RuntimeError, match="resize_: got unexpected device type mps"):
        storage.resize_(9)
    with pytest.raises(RuntimeError, match="only available on CPU"):
        storage._share_filename_cpu_()


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.ones(2, device="mps"),
        lambda: nn.Linear(2, 2).to("mps"),
        lambda: nn.Parameter(torch.ones(1, device="mps")),
    ],
    ids=["tensor", "module", "parameter"],
)
def test_mps_memory_does_not_go_to_other_processes(make: Callable[[], object]) -> None:
    """torch.multiprocessing shares CPU memory only: sending an mps tensor fails as on a Mac."""
    with pytest.raises(RuntimeError, match=r"_share_f.*: only available on CPU"):
        ForkingPickler.dumps(make())
    x = torch.ones(2, device="mps")
    assert x.share_memory_() is x and x.is_shared()


def test_data_loader_in_this_process() -> None:
    """No workers, batches made on mps, collated there; pinned memory is declined with the Mac's warning."""
    data = TensorDataset(torch.arange(6.0, device="mps"), torch.arange(6, device="mps"))
    batches = list(DataLoader(data, batch_size=4))
    assert [len(x) for x, _ in batches] == [4, 2] and all(t.device.type == "mps" for batch in batches for t in batch)
    with pytest.warns(UserWarning, match="'pin_memory' argument is set as true but not supported on MPS now"):
        (batch,) = next(iter(DataLoader(TensorDataset(torch.ones(2)), pin_memory=True)))
    assert not batch.is_pinned()
    with torch.device("mps"), pytest.raises(RuntimeError, match="Expected a 'mps' device type for generator"):
        next(iter(DataLoader(data, shuffle=True)))


@pytest.mark.slow
def test_spawned_processes_have_a_device_of_their_own(tmp_path: Path) -> None:
    """Workers started with "spawn" compute on mps and send CPU tensors; a DataLoader with spawned workers works."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            import torch
            from patcher.simulator import start
            start("M1 8GB")
            import torch.multiprocessing as mp
            from torch.utils.data import DataLoader, Dataset

            class Squares(Dataset):
                def __len__(self): return 4
                def __getitem__(self, index): return (torch.tensor(index, device="mps") ** 2).cpu()

            def work(queue, x):
                assert not torch.mps._is_in_bad_fork()
                queue.put((x.to("mps") * 2).sum().item())

            if __name__ == "__main__":
                x = torch.ones(3, device="mps")
                context = mp.get_context("spawn")
                queue = context.Queue()
                process = context.Process(target=work, args=(queue, x.cpu()))
                process.start()
                print(queue.get())
                process.join()
                loader = DataLoader(Squares(), 2, num_workers=1, multiprocessing_context="spawn")
                print([batch.tolist() for batch in loader])
        """)
    )
    done = run_python(script, timeout=240)
    assert done.stdout.split("\n")[:2] == ["6.0", "[[0, 1], [4, 9]]"]
