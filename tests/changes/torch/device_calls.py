"""Calls everything in `devices` on a simulated Mac, and writes where it landed: ``python -m ... FILE``."""

from __future__ import annotations

import json
import logging
import pickle
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from patcher import patch_for_mac

handle = patch_for_mac(simulate="M3 Max 36GB")

import numpy as np  # noqa: E402
import safetensors.torch  # noqa: E402
import torch  # noqa: E402
from torch.nn.attention.flex_attention import create_block_mask, create_mask  # noqa: E402

from patcher.errors import NotOnMac  # noqa: E402
from tests.changes.torch.devices import CALLS, FORMS, WITHOUT_A_DEVICE  # noqa: E402


def causal(batch: Any, head: Any, query: Any, key: Any) -> Any:
    return query >= key


def first(made: Any) -> Any:
    """The tensor itself, or a parameter of the module."""
    return made if isinstance(made, torch.Tensor) else next(made.parameters())


def under(device: Any) -> torch.Tensor:
    with device:
        return torch.zeros(1)


def under_default(device: Any) -> torch.Tensor:
    torch.set_default_device(device)
    made = torch.ones(1)
    torch.set_default_device(None)
    return made


def under_type(kind: Any) -> torch.Tensor:
    """What torch makes under a type of CUDA's; the CPU's type takes it back."""
    torch.set_default_tensor_type(kind)
    made = torch.ones(1)
    torch.set_default_tensor_type(torch.FloatTensor)
    assert torch.ones(1).device.type == "cpu" and torch.ones(1).dtype is torch.float32
    assert kind == "torch.cuda.FloatTensor" or made.dtype is torch.float16
    return made


def shuffled(generator: torch.Generator) -> torch.Tensor:
    """A batch of a loader that draws its order on the GPU."""
    torch.set_default_device("cuda")
    rows = torch.utils.data.TensorDataset(torch.arange(4.0))
    (batch,) = next(iter(torch.utils.data.DataLoader(rows, batch_size=2, shuffle=True, generator=generator)))
    torch.set_default_device(None)
    return batch


def drawn(seed: int) -> torch.Tensor:
    return torch.rand(4, generator=torch.Generator("cuda").manual_seed(seed), device="cuda")


def names(folder: Path) -> dict[str, Any]:
    """What the calls use besides torch."""
    x = torch.ones(2)
    torch.save(x, folder / "x.pt")
    before, torch.serialization.location_tag = torch.serialization.location_tag, lambda storage: "cuda:0"
    torch.save(x, folder / "cuda.pt")
    torch.serialization.location_tag = before
    torch.save(x.to("cuda"), folder / "mps.pt")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), folder / "linear.pt")
    safetensors.torch.save_file({"x": x}, folder / "x.safetensors")
    files = {
        "file": "x.pt",
        "saved_on_cuda": "cuda.pt",
        "saved_here": "mps.pt",
        "scripted": "linear.pt",
        "tensors": "x.safetensors",
    }
    return {
        **globals(),
        "create_block_mask": create_block_mask,
        "create_mask": create_mask,
        "numpy": np,
        **{name: str(folder / file) for name, file in files.items()},
        "folder": str(folder),
        "url": (folder / "x.pt").as_uri(),
        "x": x,
        "y": torch.ones(3),
    }


def outcome(code: str, known: dict[str, Any], form: str = "None") -> str:
    """The device on which the result of ``code`` is, or what was raised."""
    try:
        return str(torch.device(eval(code, {**known, "D": eval(form)}).device).type)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


def forms_of(name: str) -> Iterable[str]:
    """Numbers are no map_location, and no device of `from_dlpack`."""
    return FORMS[:4] if "load" in name or "dlpack" in name else FORMS


def facts(known: dict[str, Any]) -> dict[str, Any]:
    """What is asked about types and identities."""
    generator, x = torch.Generator("cuda"), torch.ones(1, device="cuda")
    compiled = "def f(n: int): return torch.range(0, n)\n"
    return {
        "generators": [isinstance(g, torch.Generator) for g in (generator, torch.default_generator, torch.Generator())],
        "no generator": isinstance(x, torch.Generator),
        "equal": torch.Generator == torch._C.Generator and hash(torch.Generator) == hash(torch._C.Generator),
        "annotation": str(torch.Generator | None),
        "pickled": pickle.loads(pickle.dumps(torch.Generator)) is torch.Generator,
        "event": isinstance(torch.Event(device="cuda"), torch.Event),
        "FloatTensor": [isinstance(t, torch.cuda.FloatTensor) for t in (x, x.half(), x.cpu())],
        "sizes": list(torch.cuda.HalfTensor(2, 3).shape),
        "scripted": torch.jit.CompilationUnit(compiled).f(2).tolist(),
        "kaiser": (torch.kaiser_window(8, device="cuda").cpu() - torch.kaiser_window(8)).abs().max().item(),
        "repeatable": torch.equal(drawn(3), drawn(3)) and not torch.equal(drawn(3), drawn(4)),
        "from GPU to CPU": str(torch.load(known["saved_here"], map_location={"cuda:0": "cpu"}).device),
        "pinned": str(x.cpu().pin_memory("cuda").device),
        "nested on the CPU": str(torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]).device),
    }


def refused() -> dict[str, str]:
    """What NotOnMac says."""
    said = {}
    for name in ("sparse_csr_tensor", "nested.nested_tensor"):
        try:
            eval(f"torch.{name}([[0.0]], device='cuda')")
        except NotOnMac as error:
            said[name] = str(error)
    for name in ("nested_tensor", "as_nested_tensor"):
        try:
            getattr(torch.nested, name)([torch.ones(2, device="mps")])
        except NotOnMac as error:
            said[f"{name} of tensors on mps"] = str(error)
    return said


def main() -> None:
    logging.disable()
    with tempfile.TemporaryDirectory() as folder:
        known = names(Path(folder))
        found = {
            "calls": {n: {form: outcome(CALLS[n], known, form) for form in forms_of(n)} for n in CALLS},
            "others": {name: outcome(code, known) for name, code in WITHOUT_A_DEVICE.items()},
            "facts": facts(known),
            "refused": refused(),
        }
    handle.undo()
    found["undone"] = [
        type(torch.Generator).__name__,
        repr(torch.cuda.FloatTensor),
        outcome("torch.Generator('cuda')", {"torch": torch}),
    ]
    Path(sys.argv[1]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
