"""What becomes of float64 on a simulated Mac; ``python -m tests.changes.torch.narrowing FILE`` writes it down."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from patcher import patch_for_mac
from tests.said import kept

said = kept()
handle = patch_for_mac(simulate="M3 Max 36GB")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from accelerate.utils import send_to_device  # noqa: E402
from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402

SEVENTHS = np.arange(3.0) / 7
D = {"dtype": torch.float64, "device": "cuda"}


def buffered() -> torch.nn.Module:
    module = torch.nn.Linear(2, 2).double()
    module.register_buffer("b", torch.tensor(SEVENTHS))
    return module


def loaded(file: str) -> torch.Tensor:
    torch.save({"x": torch.tensor(SEVENTHS)}, file)
    return torch.load(file, map_location="cuda")["x"]


CALLS: dict[str, Callable[[], torch.Tensor]] = {
    "tensor": lambda: torch.tensor(SEVENTHS, device="cuda"),
    "as_tensor": lambda: torch.as_tensor(SEVENTHS, device="cuda"),
    "asarray": lambda: torch.asarray(SEVENTHS, device="cuda"),
    "new_tensor": lambda: torch.ones(1, device="cuda").new_tensor(SEVENTHS),
    "to": lambda: torch.from_numpy(SEVENTHS).to("cuda"),
    "to by keyword": lambda: torch.from_numpy(SEVENTHS).to(device="cuda", non_blocking=True),
    "to mps": lambda: torch.from_numpy(SEVENTHS).to("mps"),
    "to with dtype": lambda: torch.from_numpy(SEVENTHS).float().to("cuda", torch.float64),
    "to another's": lambda: torch.from_numpy(SEVENTHS).to(torch.ones(1, device="cuda").device),
    "cuda": lambda: torch.from_numpy(SEVENTHS).cuda(),
    "type": lambda: torch.from_numpy(SEVENTHS).type("torch.cuda.DoubleTensor"),
    "double": lambda: torch.from_numpy(SEVENTHS).float().cuda().double(),
    "type float64": lambda: torch.from_numpy(SEVENTHS).float().cuda().type(torch.float64),
    "buffer": lambda: buffered().to("cuda").b,
    "buffer by cuda": lambda: buffered().cuda().b,
    "send_to_device": lambda: send_to_device({"y": [torch.from_numpy(SEVENTHS)]}, torch.device("mps"))["y"][0],
    "load": lambda: loaded(f"{sys.argv[1]}.pt"),
    "sparse": lambda: torch.from_numpy(SEVENTHS).to_sparse().cuda().cpu().to_dense().cuda(),
}
"""Each one is `SEVENTHS`, rounded once."""

OTHERS: dict[str, Callable[[], torch.Tensor]] = {
    "zeros": lambda: torch.zeros(2, **D),
    "empty": lambda: torch.empty(2, **D),
    "zeros on its device": lambda: torch.zeros(2, dtype=torch.float64, device=torch.ones(1, device="cuda").device),
    "ones_like": lambda: torch.ones_like(torch.ones(2, device="cuda"), dtype=torch.float64),
    "new_zeros": lambda: torch.ones(2, device="cuda").new_zeros(2, dtype=torch.float64),
    "full": lambda: torch.full((2,), 0.1, **D),
    "linspace": lambda: torch.linspace(0, 1, 3, **D),
    "rand": lambda: torch.rand(2, **D),
    "module": lambda: buffered().cuda().weight,
    "double of a module on mps": lambda: torch.nn.Linear(2, 2).cuda().double().weight,
    "sum": lambda: torch.ones(3, device="cuda").sum(dtype=torch.float64),
    "torch.mean": lambda: torch.mean(torch.ones(3, device="cuda"), dtype=torch.float64),
    "cumsum": lambda: torch.ones(3, device="cuda").cumsum(0, dtype=torch.float64),
    "softmax": lambda: torch.nn.functional.softmax(torch.ones(3, device="cuda"), -1, dtype=torch.float64),
    "nothing": lambda: torch.as_tensor(np.zeros((0, 4)), device="cuda"),
    "nothing on mps": lambda: torch.zeros(0, 4, dtype=torch.float64, device="mps"),
    "nothing, as another": lambda: torch.ones(1, device="cuda").new_tensor(np.zeros(0)),
    "unsigned": lambda: torch.tensor([1, 2], dtype=torch.uint64).to("cuda", torch.float64),
    "vector_norm": lambda: torch.linalg.vector_norm(torch.ones(3, device="cuda"), dtype=torch.float64),
}

IDS = torch.tensor([1.0, 2.0**24 + 1], dtype=torch.float64)


def in_a_batch() -> Any:
    return send_to_device({"labels": torch.tensor([1.5, 1e300], dtype=torch.float64)}, torch.device("mps"))


def in_a_module() -> Any:
    module = torch.nn.Linear(2, 2)
    module.register_buffer("ids", IDS.clone())
    return module.to("cuda")


REFUSED: dict[str, Callable[[], Any]] = {
    "identifiers": lambda: IDS.to("cuda"),
    "by cuda()": lambda: IDS.cuda(),
    "unsigned": lambda: torch.tensor([2**24 + 1], dtype=torch.uint32).to("cuda", torch.float64),
    "sparse": lambda: IDS.to_sparse().cuda(),
    "in a batch": in_a_batch,
    "in a module": in_a_module,
    "from numpy": lambda: torch.tensor(np.array([16777217.0]), device="cuda"),
    "complex": lambda: torch.complex(IDS, IDS).to("cuda"),
    "full": lambda: torch.full((2,), 16777217.0, **D),
    "arange": lambda: torch.arange(2**24, 2**24 + 3, **D),
    "counts on mps": lambda: torch.tensor([2**24 + 1], device="cuda").double(),
    "a sum of counts": lambda: torch.full((3,), 2**24, device="cuda").sum(dtype=torch.float64),
}
KEPT = {
    "exact beyond 2**24": [2.0**25, 2.0**30],
    "measures": [1e20, 3.3e7 + 0.1],
    "not finite": [float("inf"), float("-inf"), 1.0],
    "nothing": [],
}


def raised(call: Callable[[], Any]) -> str:
    try:
        return f"nothing raised: {call()}"
    except TypeError as error:
        return f"{type(error).__name__}: {error}"


def everything(x: torch.Tensor) -> torch.Tensor:
    """Each function that has something in its place, on the CPU."""
    y = torch.zeros(3) + torch.full((3,), 2.0) + torch.arange(3.0) + torch.linspace(0, 1, 3) + torch.zeros_like(x)
    y = y + x.new_zeros(3) + torch.ones(3) + torch.eye(3)[0] + torch.full_like(x, 2.0) + torch.scalar_tensor(2.0)
    z = torch.sum(x, dtype=torch.float64) + x.sum() + x.mean() + torch.softmax(x, -1) + x.double() + x.log_softmax(-1)
    return y + z + torch.cumsum(x, 0) + torch.linalg.vector_norm(x) + torch.linalg.norm(x) + x.new_tensor([1.0, 2, 3])


def as_torch() -> dict[str, float]:
    """How far compiled, exported and traced forms of `everything` are from it."""

    class Module(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return everything(x)

    x = torch.rand(3)
    forms = {
        "compile": torch.compile(everything, fullgraph=True, backend="aot_eager"),
        "export": torch.export.export(Module(), (x,)).module(),
        "make_fx": make_fx(everything)(x),
    }
    return {name: (form(x) - everything(x)).abs().max().item() for name, form in forms.items()}


def gradient() -> list[Any]:
    x = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    (x.to("cuda") ** 2).sum().backward()
    leaf = torch.tensor(SEVENTHS, device="cuda", requires_grad=True)
    return [str(x.grad.dtype), x.grad.device.type, x.grad.tolist(), leaf.is_leaf and leaf.requires_grad]


def main() -> None:
    found: dict[str, Any] = {"names": {name: raised(call) for name, call in REFUSED.items()}}
    rounded = torch.from_numpy(SEVENTHS).float()
    moved = {name: call() for name, call in CALLS.items()}
    found["moved"] = {n: [str(t.dtype), t.device.type, torch.equal(t.cpu(), rounded)] for n, t in moved.items()}
    others = {name: call() for name, call in OTHERS.items()}
    found["others"] = {name: [str(t.dtype), t.device.type] for name, t in others.items()}
    found["complex"] = str(torch.complex(torch.ones(1).double(), torch.ones(1).double()).cuda().dtype)
    wide = {name: torch.tensor(values, dtype=torch.float64) for name, values in KEPT.items()}
    found["kept"] = {name: torch.equal(x.cuda().cpu(), x.float()) for name, x in wide.items()}
    found["cpu"] = [str(x.dtype) for x in (torch.zeros(1, dtype=torch.float64), torch.ones(1).double(), IDS.to("cpu"))]
    found["storage"] = raised(lambda: torch.TypedStorage(4, dtype=torch.float64, device="mps")[0])
    found["back"] = str(torch.ones(1, device="cuda").to("cpu", torch.float64).dtype)
    found["words"] = [raised(lambda: torch.sum(1)), raised(lambda: torch.ones(1).to(src=1))]  # type: ignore[call-overload]
    found |= {"gradient": gradient(), "as torch": as_torch(), "said": [text for text in said if "float64" in text]}
    handle.undo()
    found["undone"] = raised(lambda: torch.ones(1, dtype=torch.float64, device="mps"))
    Path(sys.argv[1]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
