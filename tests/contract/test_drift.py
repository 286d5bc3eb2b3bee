"""What happens when upstream moves: every target of the catalogue is perturbed, one thing at a time.

For each change a release of the libraries is faked in which its target has another parameter, or has lost its name, its
class, its module or its operator, or in which upstream supplies what a change adds. Shown is that

- the libraries import, and the change is reported as refused, where training goes on without it;
- where training cannot, the gate at the end of `unsloth`, the gate at the end of `transformers.trainer`, or the import
  of the module itself names exactly the changes that are not in place;
- every other change is in place as before.

The finder, the session, the ledger and the catalogue's data are the real ones; the libraries are fakes, made of what
the changes expect, since a real library cannot be imported hundreds of times. Variables and shims have no target that
could drift. At the end real releases are spoilt, in processes of their own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from string import Template
from typing import Any
from unittest import mock

import pytest

from patcher.engine import ledger, requirements
from patcher.engine.ledger import LEDGER
from patcher.engine.model import Kernel, State
from patcher.engine.session import GATE, TRAINER
from tests.contract.drift import Drift, Outcome, Release, changes, drifts, hidden, outcome
from tests.process import run_python

CHANGES = changes()
GOOD = Release.expected(CHANGES)
REQUIRED = {change.key for change in CHANGES if change.required}
MODULE = {change.key: change.module for change in CHANGES}
IN_PLACE = {State.APPLIED, State.UNREVIEWED}
ROOTS = {module.partition(".")[0] for module in GOOD.modules}
DRIFTS = list(drifts(CHANGES))
OF_OTHERS = [d for d in DRIFTS if any(not MODULE[key].startswith(GATE) for key in d.refused | d.skipped)]
WITHOUT_UNSLOTH = ["torch", TRAINER, *(name for name in GOOD.modules if not name.startswith(GATE))]
"""What a script without Unsloth imports, each of them once."""


@pytest.fixture(scope="module", autouse=True)
def no_real_library() -> Iterator[None]:
    """Whatever other tests imported is put aside meanwhile; metadata are read once, since they stay the same."""
    assert LEDGER.entries() == []
    once = [(ledger, "installed_version"), (requirements, "unmet")]
    with ExitStack() as stack:
        stack.enter_context(hidden(ROOTS))
        for module, name in once:
            stack.enter_context(mock.patch.object(module, name, cache(getattr(module, name))))
        yield


@pytest.fixture(scope="module")
def with_unsloth() -> Outcome:
    return outcome(CHANGES, GOOD, [GATE])


@pytest.fixture(scope="module")
def alone() -> Outcome:
    return outcome(CHANGES, GOOD, WITHOUT_UNSLOTH)


def test_the_release_that_the_changes_expect_gets_them_all(with_unsloth: Outcome, alone: Outcome) -> None:
    """Nothing is refused, and without Unsloth only what is Unsloth's is left; else the other tests would say little."""
    assert with_unsloth.imported == {GATE} and not with_unsloth.named
    assert set(with_unsloth.states.values()) <= IN_PLACE
    assert alone.imported == set(WITHOUT_UNSLOTH) and not alone.named
    assert {key for key, state in alone.states.items() if state not in IN_PLACE} == {
        key for key, module in MODULE.items() if module.startswith(GATE)
    }


def test_every_change_drifts() -> None:
    """Each one is refused, or no longer needed, in some release: none is left out. A module always has a class."""
    hit = {key for drift in DRIFTS for key in drift.refused | drift.skipped}
    assert hit == set(MODULE) - {"torch:__class__"}


@pytest.mark.parametrize("drift", DRIFTS, ids=lambda drift: drift.what)
def test_with_unsloth(drift: Drift, with_unsloth: Outcome) -> None:
    """`import unsloth` succeeds, or its gate names what training needs and lacks, and nothing else."""
    found = outcome(CHANGES, drift.release, [GATE])
    needed = drift.refused & REQUIRED
    assert found.named == needed
    assert found.imported == (frozenset() if needed else {GATE})
    fate = {**dict.fromkeys(drift.refused, State.REFUSED), **dict.fromkeys(drift.skipped, State.SKIPPED)}
    assert found.states == with_unsloth.states | fate


@pytest.mark.parametrize("drift", OF_OTHERS, ids=lambda drift: drift.what)
def test_without_unsloth(drift: Drift, alone: Outcome) -> None:
    """torch imports in any case; the gate of transformers' trainer, or the module itself, names what training needs."""
    there = [name for name in WITHOUT_UNSLOTH if name in drift.release.modules]
    found = outcome(CHANGES, drift.release, there)
    ours = {key for key in drift.refused if not MODULE[key].startswith(GATE)}
    needed = {
        key for key in ours & REQUIRED if MODULE[key].startswith(("torch", "transformers")) or MODULE[key] in there
    }
    assert found.named <= needed and {MODULE[key] for key in found.named} == {MODULE[key] for key in needed}
    assert "torch" in found.imported
    stopped = {module for module in there if module not in found.imported}
    expected = alone.states | dict.fromkeys(drift.skipped, State.SKIPPED)
    rest = {key for key in MODULE if key not in ours and MODULE[key] not in stopped}
    assert {key: found.states[key] for key in rest} == {key: expected[key] for key in rest}
    assert not {found.states[key] for key in ours} & IN_PLACE


# -- real releases -------------------------------------------------------------------------------------------------


def test_an_operator_that_torch_lacks_is_refused() -> None:
    """torch itself takes a kernel for any name without a word: only the fakes above would show it."""
    printed = run_python(
        "-c", f"from tests.contract.test_drift import refused_kernels\nrefused_kernels({GONE!r})"
    ).stdout
    assert json.loads(printed) == dict.fromkeys(GONE, "refused") | {"aten::mm.out": "unreviewed"}


GONE = ["aten::gone", "aten::mm.gone"]


def refused_kernels(operators: list[str]) -> None:
    """Prints what the real torch's ledger says to kernels for these operators, and for one that is there."""
    import torch

    found = {}
    for op in [*operators, "aten::mm.out"]:
        kernel = Kernel(op=op, dispatch_key="MPS", replacement="operator:matmul", **TEXT)
        own = ledger.Ledger()
        found[op] = own.apply(kernel, torch).state.value
        own.undo()
    print(json.dumps(found))


TEXT: dict[str, Any] = {
    "distribution": "torch",
    "reviewed": "==0",
    "why": "w",
    "upstream": "u",
    "until": "u",
    "needed_for": None,
}

SPOIL = Template("""
import json, sys
from importlib.machinery import PathFinder
class Spoilt:
    def __init__(self, loader, source): self.loader, self.source = loader, source
    def __getattr__(self, name): return getattr(self.loader, name)
    def exec_module(self, module):
        self.loader.exec_module(module)
        exec(self.source, vars(module))
class Spoiler:
    def __init__(self, spoilt): self.spoilt = spoilt
    def find_spec(self, name, path=None, target=None):
        spec = PathFinder.find_spec(name, path, target) if name in self.spoilt else None
        if spec is not None: spec.loader = Spoilt(spec.loader, self.spoilt[name])
        return spec
sys.meta_path.insert(0, Spoiler($spoilt))
from patcher import patch_for_mac
from patcher.errors import GateClosed
handle = patch_for_mac(simulate="M3 Max 36GB", without=$without)
answer = {"named": [], "torch": None}
try:
    $program
except Exception as error:
    gate = error if isinstance(error, GateClosed) else error.__cause__  # transformers raises an ImportError from it
    answer["named"] = gate.targets
import torch
answer["torch"] = torch.ones(2, device="mps").sum().item()
answer["refused"] = [e.change.key for e in handle.report().entries if e.state.value == "refused"]
print("ANSWER" + json.dumps(answer))
""")
OF_TORCH = {
    "torch": "def changed(self, device_type, new): pass\nimport torch.amp\n"
    "torch.amp.autocast_mode.autocast.__init__ = changed\ndel torch.cuda.memory_summary"
}
NEEDED, OPTIONAL = "unsloth.kernels.utils:fast_dequantize", "unsloth.kernels.geglu:geglu_exact_forward_kernel"
OF_UNSLOTH = {
    "unsloth.kernels.utils": "def fast_dequantize(W, new): pass",
    "unsloth.kernels.geglu": "def geglu_exact_forward_kernel(gate, up, new): pass",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoilt", "program", "without", "named", "refused"),
    [
        pytest.param(
            OF_TORCH,
            "from transformers import Trainer",
            [],
            ["torch.amp.autocast_mode:autocast.__init__"],
            {"torch.amp.autocast_mode:autocast.__init__", "torch.cuda:memory_summary"},
            id="torch",
        ),
        pytest.param(OF_UNSLOTH, "import unsloth", [], [NEEDED], {NEEDED, OPTIONAL}, id="unsloth"),
        pytest.param(OF_UNSLOTH, "import unsloth", [NEEDED], [], {OPTIONAL}, id="unsloth without it"),
    ],
)
def test_a_spoilt_release(
    spoilt: dict[str, str], program: str, without: list[str], named: list[str], refused: set[str]
) -> None:
    """The real torch, transformers and Unsloth, with two functions changed: one that training needs, one not."""
    code = SPOIL.substitute(spoilt=spoilt, without=without, program=program)
    printed = run_python("-W", "ignore", "-c", code).stdout
    found = json.loads(printed.partition("ANSWER")[2].splitlines()[0])
    assert found["torch"] == 2.0
    assert (found["named"], set(found["refused"])) == (named, refused)
