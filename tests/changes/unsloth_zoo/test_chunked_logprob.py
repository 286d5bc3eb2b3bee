"""Labels of unsloth_zoo's loss: upstream's own, and known on the host, so that the loss waits for nothing."""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from patcher.replacements.unsloth_zoo.chunked_logprob import _ce_targets
from tests.process import answer, run_python

PROGRAM = """
from patcher import patch_for_mac
patch_for_mac(simulate="M3 Max 36GB")
import json, torch
from patcher.replacements.unsloth_zoo.chunked_logprob import _ce_targets
from patcher.replacements.unsloth_zoo.fused_linear import _ce_impl
from patcher.simulator.meter import Meter

hidden, weight, one = torch.randn(24, 8).to("mps"), torch.randn(40, 8).to("mps"), torch.ones((), device="mps")
labels = torch.randint(0, 40, (3, 8))
labels[:, :3] = -100
mask = torch.ones(3, 8, dtype=torch.int64)
mask[1, 6:] = 0

def loss(labels, mask):
    '''The loss, its gradient's sum, and the waits until then.'''
    with Meter() as meter:
        targets = _ce_targets(labels, mask, True, -100, "mps")
        settings = (0.0, 0.0, 0.0, 0.0, None, torch.float32, True, False, False, False, 0)
        value, gradient, *_ = _ce_impl(hidden, weight, None, targets, one, one, -100, *settings)
    return [value.item(), gradient.double().cpu().abs().sum().item(), meter.usage().synchronizations]

there, of_mask = labels.to("mps"), mask.to("mps")
found = {"known": loss(there, of_mask), "without a mask": loss(there, None), "a view": loss(there[1:].flatten(), None)}
found["computed"] = loss(there + 0, of_mask)
there[0, 5] = -100
labels[0, 5] = -100
found["written to"] = loss(there, of_mask)
found["the same"] = loss(labels.to("mps"), of_mask)
try:
    loss((labels + 1000).to("mps"), None); found["refused"] = ""
except IndexError as error:
    found["refused"] = str(error)
print("ANSWER" + json.dumps(found))
"""


def upstream() -> Any:
    """The function as the installed unsloth_zoo has it, without the package around it."""
    package = find_spec("unsloth_zoo")
    assert package is not None and package.origin is not None
    text = Path(package.origin).with_name("fused_losses").joinpath("chunked_logprob.py").read_text()
    (node,) = [each for each in ast.parse(text).body if getattr(each, "name", "") == "_ce_targets"]
    names: dict[str, Any] = {"torch": torch}
    exec(ast.unparse(node), names)  # noqa: S102 - a dozen lines of the library that is patched
    return names["_ce_targets"]


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_they_are_upstreams(shift: bool, masked: bool) -> None:
    """Shifted and not, with an attention mask and without, with either ignore_index."""
    labels = torch.randint(0, 9, (3, 7), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(7) >= torch.tensor([[0], [2], [4]])).long() if masked else None
    for ignore_index in (-100, 3):
        found, expected = (f(labels, mask, shift, ignore_index, "cpu") for f in (_ce_targets, upstream()))
        assert torch.equal(found, expected)


@pytest.mark.slow
def test_the_loss_waits_where_labels_are_not_known() -> None:
    """Once then; not at all for what came from the host, and what was written to since is not taken for known."""
    found = answer(run_python("-c", PROGRAM))
    waits = {name: value[2] for name, value in found.items() if name != "refused"}
    assert waits == {"known": 0, "without a mask": 0, "a view": 0, "computed": 1, "written to": 1, "the same": 0}
    assert found["computed"][:2] == found["known"][:2] and found["written to"][:2] == found["the same"][:2]
    assert found["written to"][:2] != found["known"][:2] != found["without a mask"][:2]
    assert "-100, or 0 to 39" in found["refused"]
