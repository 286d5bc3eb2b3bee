"""Which changes are in force: by the names that the report prints, and not those that the user switches off."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable

import pytest

from patcher import patch_for_mac
from patcher.changes import catalogue
from patcher.engine.choice import one_for_each_target, switched_off
from patcher.engine.ledger import LEDGER
from patcher.engine.model import State
from patcher.engine.report import Report
from patcher.engine.session import Session
from patcher.errors import InvalidSwitch
from tests.engine.conftest import OURS, Library, patch
from tests.process import run_python

CHANGES = one_for_each_target(catalogue())
KEYS = {change.key for change in CHANGES}


def test_every_change_answers_to_its_key_alone() -> None:
    """What the report prints switches that change off, and no other."""
    for key in KEYS:
        assert switched_off(CHANGES, (key,)) == {key}


@pytest.mark.parametrize(
    ("pattern", "of"),
    [
        ("trl", lambda change: change.distribution == "trl"),
        ("transformers.trainer", lambda change: change.key.startswith("transformers.trainer:")),
        ("transformers.trainer:Trainer", lambda change: change.key.startswith("transformers.trainer:Trainer.")),
        ("torch.cuda:*memory*", lambda change: change.key.startswith("torch.cuda:") and "memory" in change.key),
        ("aten::mm", lambda change: change.key in ("aten::mm on MPS", "aten::mm.out on MPS")),
        ("module unsloth.device_type", lambda change: change.key == "module unsloth.device_type"),
        ("triton", lambda change: change.key == "shim triton"),
        ("PYTORCH_ENABLE_MPS_FALLBACK", lambda change: change.key == "$PYTORCH_ENABLE_MPS_FALLBACK"),
        ("unsloth.kernels", lambda change: getattr(change, "module", "").startswith("unsloth.kernels.")),
    ],
)
def test_libraries_modules_classes_and_globs(pattern: str, of: Callable[..., bool]) -> None:
    """Each form switches off what it names, which is something."""
    assert switched_off(CHANGES, (pattern,)) == {change.key for change in CHANGES if of(change)} != set()


def test_a_name_that_nothing_has_is_an_error_with_the_nearest() -> None:
    """A misspelt name must not leave everything on without a word; nothing is changed."""
    finders = list(sys.meta_path)
    with pytest.raises(InvalidSwitch, match=r"nearest: torch\.cuda:memory_summary"):
        patch_for_mac(simulate="M3 Max 36GB", without=("torch.cuda:memory_sumary",))
    assert sys.meta_path == finders and LEDGER.entries() == []


def test_what_is_switched_off_is_left_alone_and_reported(library: Library, start: Callable[..., Session]) -> None:
    """The target stays the original, also where the change is required: the gate does not close for it."""
    library.write("lib", "def f(a): return 'original'\ndef g(a): return 'original'")
    library.write("unsloth", "import lib")
    library.write(OURS, "def f(a, b): return 'replaced'\ndef g(a): return 'replaced'")
    off, on = patch("lib:f", "f", expects="(a, b)"), patch("lib:g", "g")
    start(off, on, without=("lib:f",))
    importlib.import_module("unsloth")
    lib = sys.modules["lib"]
    assert lib.f(1) == "original" and lib.g(1) == "replaced"
    assert (LEDGER.entry(off).state, LEDGER.entry(off).detail) == (State.SKIPPED, "by the user")
    LEDGER.undo()
    assert lib.g(1) == "original"


def test_what_is_mended_everywhere_has_one_switch(library: Library, start: Callable[..., Session]) -> None:
    """``everywhere`` switches those off that say so; the report and its JSON show which these are, and the place."""
    library.write("lib", "def f(a): return 'original'\ndef g(a): return 'original'")
    library.write(OURS, "def f(a): return 'replaced'\ndef g(a): return 'replaced'")
    everywhere, here = patch("lib:f", "f", everywhere=True), patch("lib:g", "g")
    start(everywhere, here)
    importlib.import_module("lib")
    report = Report.of(LEDGER, None)
    shown = {row["target"]: row for row in json.loads(report.to_json())["changes"]}
    assert (shown["lib:f"]["everywhere"], shown["lib:g"]["everywhere"]) == (True, False)
    place = {"repository": "maker/lib", "path": "lib.py", "symbol": "f", "issues": [], "installed": True}
    assert shown["lib:f"]["upstream"] == place
    marked = [line for line in str(report).splitlines() if "without='everywhere'" in line]
    assert len(marked) == 1 and "lib:f" in marked[0]
    LEDGER.undo()
    start(everywhere, here, without=("everywhere",))
    assert (sys.modules["lib"].f(1), sys.modules["lib"].g(1)) == ("original", "replaced")


def test_by_argument_variable_and_option() -> None:
    """`without=`, PATCHER_WITHOUT and --without add up, and reach what a program starts."""
    code = (
        "import json\nfrom patcher import patch_for_mac\n"
        "entries = patch_for_mac(without=['trl.*']).report().entries\n"
        "print(json.dumps([e.change.key for e in entries if e.detail == 'by the user']))"
    )
    given = {"UNSLOTH_SIMULATE_MAC": "1", "PATCHER_WITHOUT": "torch.cuda:seed, shim triton"}
    expected = switched_off(CHANGES, ("trl.*", "torch.cuda:seed", "shim triton"))
    assert set(json.loads(run_python("-c", code, **given).stdout)) == expected
    printed = run_python("-m", "patcher", "report", "--json", "--without", "trl.*", **given).stdout
    assert {c["target"] for c in json.loads(printed)["changes"] if c["detail"] == "by the user"} == expected
    wrong = run_python("-m", "patcher", "run", "--without", "torch.cudda", "x.py", check=False, **given)
    assert wrong.returncode == 2 and "torch.cuda" in wrong.stderr and "nothing changed" in wrong.stderr
