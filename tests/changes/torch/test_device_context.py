"""``with torch.device(...)`` keeps acting on ``torch.tensor`` and ``torch.as_tensor``, which are patched."""

from __future__ import annotations

from tests.process import run_python

SCRIPT = """
from patcher import patch_for_mac
handle = patch_for_mac(simulate=True)
import torch

def devices(name="meta"):
    with torch.device(name):
        return [x.device.type for x in (torch.tensor([1.0]), torch.as_tensor([1.0]), torch.zeros(1))]

assert devices() == ["meta"] * 3, devices()
assert devices("cuda") == devices("cuda:0") == ["mps"] * 3, devices("cuda")
torch.set_default_device("cuda")
assert torch.tensor([1.0]).device.type == torch.get_default_device().type == "mps"
torch.set_default_device(None)
handle.undo()
assert devices() == ["meta"] * 3, devices()
"""


def test_a_model_on_the_meta_device_is_recognised() -> None:
    """transformers asks ``torch.tensor([]).device`` inside the context; a wrong answer leaves buffers uninitialised.

    For "cuda" it is mps, also as the default device.
    """
    run_python("-c", SCRIPT, timeout=300)
