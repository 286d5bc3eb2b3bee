"""``serialization``: torch.save and torch.load with mps, pickle, deepcopy, safetensors.

What a Mac does is in torch/serialization.py and torch/_utils.py, the same for every device that torch's list of
locations names (``_mps_tag``, ``_mps_deserialize``). That a Mac has no float64 shows where a tensor is made on mps.
"""

from __future__ import annotations

import copy
import io
import pickle
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tests.fidelity.cases import Case, dtype_name
from tests.fidelity.claims import Claim, Claims, refused, works
from tests.fidelity.expectations import Expectation
from tests.fidelity.measure import Different

SOURCE = "serialization.py"
NO_FLOAT64 = refused("_utils.py: no float64")
NO_FLOAT8 = refused("serialization.py: no float8")
"""``_legacy_save`` looks for a class of storages of the dtype, on any device."""

DTYPES = (
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.complex64,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
    torch.float8_e4m3fn,
)
"""That a tensor on mps can have."""

LOCATIONS: dict[str, tuple[Any, str]] = {
    "none": (None, "mps"),
    "mps": ("mps", "mps"),
    "mps:0": ("mps:0", "mps"),
    "device": (torch.device("mps"), "mps"),
    "cpu": ("cpu", "cpu"),
    "to-cpu": ({"mps": "cpu"}, "cpu"),
    "kept": (lambda storage, location: storage, "cpu"),
    "moved": (lambda storage, location: storage.mps(), "mps"),
    "not-moved": (lambda storage, location: None, "mps"),
    "meta": ("meta", "meta"),
}
"""``map_location``, and where a tensor of mps is then."""

FORMATS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "zip": ({}, {}),
    "zip-pickled": ({}, {"weights_only": False}),
    "legacy": ({"_use_new_zipfile_serialization": False}, {}),
    "mmap": ({}, {"mmap": True}),
}
"""Arguments of save and of load."""


def sample(dtype: torch.dtype) -> Tensor:
    return torch.arange(6).view(2, 3).to(dtype)


def there_and_back(value: Any, saving: dict[str, Any], loading: dict[str, Any]) -> Any:
    """What torch.load gives of what torch.save was given."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "value.pt"
        torch.save(value, path, **saving)
        return torch.load(path, **loading)


def one_dtype(dtype: torch.dtype, where: str, how: str) -> Iterator[tuple[Any, Any]]:
    """A tensor, a view of it and an empty one keep their values, strides, device and shared memory."""
    location, device = LOCATIONS[where]
    saving, loading = FORMATS[how]
    base = sample(dtype).to("mps")
    values = {"base": base, "view": base.t()[1:], "empty": base[:0]}
    loaded = there_and_back(values, saving, {**loading, "map_location": location})
    for name, value in values.items():
        found = loaded[name]
        yield (
            (found.device.type, found.dtype, found.shape, found.stride()),
            (device, dtype, value.shape, value.stride()),
        )
        if device != "meta":
            yield as_bytes(found), as_bytes(value)
    if device != "meta":
        storages = {value.untyped_storage().data_ptr() for value in (loaded["base"], loaded["view"])}
        yield len(storages), 1


def as_bytes(tensor: Tensor) -> Tensor:
    return tensor.cpu().contiguous().view(torch.uint8)


def objects() -> dict[str, Callable[[], Any]]:
    """What training scripts save besides tensors."""

    def model() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).to("mps")

    def optimizer(kind: type[torch.optim.Optimizer]) -> dict[str, Any]:
        trained = model()
        stepped = kind(trained.parameters(), lr=0.1)  # type: ignore[call-arg]
        trained(torch.ones(2, 3, device="mps")).square().sum().backward()
        stepped.step()
        return stepped.state_dict()

    def parameter() -> nn.Parameter:
        return nn.Parameter(torch.arange(3.0, device="mps"), requires_grad=False)

    return {
        "module": model,
        "state-dict": lambda: model().state_dict(),
        "parameter": parameter,
        "buffer": lambda: nn.Buffer(torch.ones(2, device="mps")),
        "sgd": partial(optimizer, torch.optim.SGD),
        "adam": partial(optimizer, torch.optim.Adam),
        "adamw": partial(optimizer, torch.optim.AdamW),
        "adagrad": partial(optimizer, torch.optim.Adagrad),
        "grad-scaler": lambda: torch.amp.GradScaler("mps").state_dict(),
        "sparse": lambda: torch.eye(3, device="mps").to_sparse(),
        "nested-lists": lambda: [(torch.ones(1, device="mps"), {"a": [torch.zeros(2, device="mps")]}), 3, "text"],
        "rng-state": torch.mps.get_rng_state,
        "conjugate": lambda: torch.tensor([1 + 2j], dtype=torch.complex64, device="mps").conj(),
        "requires-grad": lambda: torch.ones(2, device="mps", requires_grad=True),
        "scalar": lambda: torch.tensor(3, device="mps"),
    }


WAYS: dict[str, Callable[[Any], Any]] = {
    "save": lambda value: there_and_back(value, {}, {"weights_only": False}),
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "deepcopy": copy.deepcopy,
}


def one_object(make: Callable[[], Any], way: Callable[[Any], Any]) -> Iterator[tuple[Any, Any]]:
    """The copy has the original's class, tensors and devices, in memory of its own."""
    value = make()
    copied = way(value)
    yield type(copied), type(value)
    ours, theirs = leaves(copied), leaves(value)
    yield len(ours), len(theirs)
    for found, original in zip(ours, theirs, strict=True):
        if not isinstance(original, Tensor):
            yield found, original
            continue
        yield (
            (found.device, found.dtype, found.requires_grad),
            (original.device, original.dtype, original.requires_grad),
        )
        yield found.cpu(), original.cpu()
        if original.layout == torch.strided and original.numel() > 0:
            yield found.data_ptr() == original.data_ptr(), False


def leaves(value: Any) -> list[Any]:
    return pytree.tree_leaves(value.state_dict() if isinstance(value, nn.Module) else value)


def generator() -> Iterator[tuple[Any, Any]]:
    """With its seed and its place."""
    made = torch.Generator(device="mps").manual_seed(7)
    torch.randn(3, device="mps", generator=made)
    copied = pickle.loads(pickle.dumps(made))
    draws = [torch.randn(3, device="mps", generator=each) for each in (copied, made)]
    yield draws[0], draws[1]
    yield copied.device.type, "mps"


def wide(location: Any, how: str) -> Iterator[tuple[Any, Any]]:
    """A checkpoint in float64, as a CPU or a CUDA machine writes it."""
    saving, loading = FORMATS[how]
    loaded = there_and_back({"x": torch.ones(2, dtype=torch.float64)}, saving, {**loading, "map_location": location})
    yield loaded["x"].dtype, torch.float64


def elsewhere(tag: str, location: Any, device: str) -> Iterator[tuple[Any, Any]]:
    """A file whose tensors were on another device."""
    written = io.BytesIO()
    torch.save({"x": torch.arange(3.0)}, written)
    changed = io.BytesIO()
    with zipfile.ZipFile(written) as old, zipfile.ZipFile(changed, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith("data.pkl"):
                cpu, other = (b"X" + len(text).to_bytes(4, "little") + text.encode() for text in ("cpu", tag))
                if cpu not in data:
                    raise Different("the file names its device otherwise")
                data = data.replace(cpu, other)
            new.writestr(name, data)
    changed.seek(0)
    loaded = torch.load(changed, map_location=location)["x"]
    yield loaded.device.type, device
    yield loaded.cpu(), torch.arange(3.0)


def safetensors(dtype: torch.dtype, device: str) -> Iterator[tuple[Any, Any]]:
    """A file that was written on mps, read back to mps and to the CPU."""
    from safetensors.torch import load_file, save_file

    value = sample(dtype).to("mps")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "value.safetensors"
        save_file({"x": value, "scalar": value[0, 0].clone()}, path)
        loaded = load_file(path, device=device)
    yield (loaded["x"].device.type, loaded["x"].dtype), (torch.device(device).type, dtype)
    yield as_bytes(loaded["x"]), as_bytes(value)
    yield as_bytes(loaded["scalar"].view(1)), as_bytes(value[0, :1])


def wide_safetensors(use: Callable[[Tensor], Tensor]) -> Iterator[tuple[Any, Any]]:
    """A file in float64: safetensors loads bytes and views them, which torch does not check on any device."""
    from safetensors.torch import load_file, save_file

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "value.safetensors"
        save_file({"x": torch.ones(2, dtype=torch.float64)}, path)
        loaded = load_file(path, device="mps")["x"]
    yield use(loaded).dtype, torch.float64


class Serialization(Claims):
    """Every dtype in every format and to every place; objects of a training in three ways; files from elsewhere."""

    EVERY: ClassVar[int] = 15

    def claims(self) -> Iterator[Claim]:
        for dtype in DTYPES:
            for where in LOCATIONS:
                for how in FORMATS:
                    expected = NO_FLOAT8 if dtype == torch.float8_e4m3fn and how == "legacy" else works(SOURCE)
                    yield self._claim(where, dtype, how, expected, partial(one_dtype, dtype, where, how))
            for device in ("mps", "mps:0", "cpu"):
                yield self._claim(device, dtype, "safetensors", works(), partial(safetensors, dtype, device))
        for name, make in objects().items():
            for how, way in WAYS.items():
                yield self._claim(name, None, how, works(SOURCE), partial(one_object, make, way))
        yield self._claim("generator", None, "pickle", works(SOURCE), generator)
        yield from self._wide()
        yield from self._elsewhere()

    def _wide(self) -> Iterator[Claim]:
        for how in FORMATS:
            for name, location in (("mps", "mps"), ("cpu-to-mps", {"cpu": "mps"}), ("moved", LOCATIONS["moved"][0])):
                yield self._claim(name, torch.float64, how, NO_FLOAT64, partial(wide, location, how))
            yield self._claim("cpu", torch.float64, how, works(SOURCE), partial(wide, "cpu", how))
        unchecked = works("TensorConversions.cpp: view_dtype")
        yield self._claim("mps", torch.float64, "safetensors", unchecked, partial(wide_safetensors, lambda x: x))
        yield self._claim(
            "mps-used", torch.float64, "safetensors", NO_FLOAT64, partial(wide_safetensors, lambda x: x + 1)
        )

    def _elsewhere(self) -> Iterator[Claim]:
        cuda = refused("serialization.py: no CUDA")
        for name, tag, location, device, expected in (
            ("mps-of-a-mac", "mps", None, "mps", works(SOURCE)),
            ("mps-of-a-mac-to-cpu", "mps", "cpu", "cpu", works(SOURCE)),
            ("numbered-mps", "mps:0", None, "mps", works(SOURCE)),
            ("cuda", "cuda:0", None, "", cuda),
            ("cuda-to-cuda", "cuda:0", "cuda", "", cuda),
            ("cuda-to-mps", "cuda:0", "mps", "mps", works(SOURCE)),
            ("cuda-in-a-dict", "cuda:1", {"cuda:1": "mps"}, "mps", works(SOURCE)),
            ("cuda-not-in-the-dict", "cuda:1", {"cuda:0": "mps"}, "", cuda),
            ("xpu", "xpu:0", None, "", refused("serialization.py: no XPU")),
        ):
            yield self._claim(name, None, "elsewhere", expected, partial(elsewhere, tag, location, device))

    def _claim(
        self,
        name: str,
        dtype: torch.dtype | None,
        test: str,
        expected: Expectation,
        run: Callable[[], Iterator[tuple[Any, Any]]],
    ) -> Claim:
        return Claim(Case("serialization", name, "-" if dtype is None else dtype_name(dtype), test), expected, run)


CORPUS = Serialization
