"""Every way in which a script names CUDA lands on mps, and is mentioned once."""

from __future__ import annotations

import json

import pytest

from tests.process import run_python

FORMS = {
    "empty": "torch.empty(3, device='cuda')",
    "zeros": "torch.zeros(3, device='cuda:0')",
    "randn": "torch.randn(3, device=torch.device('cuda', 0))",
    "arange": "torch.arange(3, device='cuda')",
    "tensor": "torch.tensor([1.0, 2.0], device='cuda')",
    "as_tensor": "torch.as_tensor([1.0], device='cuda')",
    "full_like": "torch.full_like(x, 2.0, device='cuda')",
    "new_zeros": "x.new_zeros(3, device='cuda')",
    "tril_indices": "torch.tril_indices(3, 3, device='cuda')",
    "to": "x.to('cuda')",
    "to with dtype": "x.to('cuda', torch.float16)",
    "to by keyword": "x.to(device='cuda:0', non_blocking=True)",
    "cuda": "x.cuda()",
    "from mps": "x.to('mps').to('cuda')",
    "module.to": "torch.nn.Linear(2, 2).to('cuda').weight",
    "module.cuda": "torch.nn.Linear(2, 2).cuda().weight",
    "module on cuda": "torch.nn.Linear(2, 2, device='cuda').weight",
    "default device": "made_under('cuda')",
    "load": "torch.load(file, map_location='cuda')",
    "load by dictionary": "torch.load(file, map_location={'cpu': 'cuda:0'})",
    "load by device": "torch.load(file, map_location=torch.device('cuda'))",
}

SCRIPT = """
import json, sys
from patcher import patch_for_mac
from tests.said import kept
seen = kept()
handle = patch_for_mac(simulate="M1 8GB")
import torch
file = sys.argv[1]
x = torch.arange(3.0)
torch.save(x, file)
def made_under(device):
    with torch.device(device):
        return torch.zeros(2)
found = {name: str(eval(code).device) for name, code in json.loads(sys.argv[2]).items()}
y = x.clone().requires_grad_()
(y.to("cuda") * 2).sum().backward()
scaler = torch.amp.GradScaler("cuda")
meta = torch.device("meta")
with meta:
    inside = str(torch.tensor([1.0]).device)
compiled = "def f(n: int): return torch.tensor([n]) + torch.as_tensor([n])\\n"
scripted = torch.jit.CompilationUnit(compiled).f(2).tolist()
handle.undo()
scripted += torch.jit.CompilationUnit(compiled).f(3).tolist()
try:
    torch.zeros(2, device="cuda:0"); left = "nothing raised"
except (AssertionError, RuntimeError, NotImplementedError) as error:
    left = type(error).__name__
print(json.dumps({"found": found, "said": [s for s in seen if "cuda" in s], "grad": y.grad.tolist(),
                  "grad device": str(y.grad.device), "scaler": scaler.is_enabled(), "meta": inside, "undone": left,
                  "scripted": scripted,
                  "values": x.tolist()}))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What the script above found in a process of its own."""
    file = tmp_path_factory.mktemp("cuda") / "x.pt"
    done = run_python("-c", SCRIPT, file, json.dumps(FORMS), timeout=120)
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_every_form_lands_on_mps(answers: dict[str, object]) -> None:
    assert answers["found"] == dict.fromkeys(FORMS, "mps:0")


def test_it_is_said_once(answers: dict[str, object]) -> None:
    assert answers["said"] == ['patcher: the script asks for "cuda": it gets mps']


def test_gradients_come_back_to_where_the_tensor_was(answers: dict[str, object]) -> None:
    assert answers["grad"] == [2.0, 2.0, 2.0]
    assert answers["grad device"] == "cpu"


def test_grad_scaler_for_cuda_is_not_inert(answers: dict[str, object]) -> None:
    assert answers["scaler"] is True


def test_other_device_contexts_still_reach_torch_tensor(answers: dict[str, object]) -> None:
    """Without it transformers leaves RoPE's frequencies uninitialised when it loads a model."""
    assert answers["meta"] == "meta"


def test_undo_takes_the_kernels_away(answers: dict[str, object]) -> None:
    assert answers["undone"] != "nothing raised"


def test_torchscript_knows_the_replaced_functions(answers: dict[str, object]) -> None:
    """`torch.jit.script`, which the code of DeBERTa uses at its import, finds torch.tensor by identity."""
    assert answers["scripted"] == [4, 6]
