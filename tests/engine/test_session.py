"""A session on tiny libraries: order of imports, the gate, late calls, shims and variables."""

from __future__ import annotations

import gc
import importlib
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

import pytest

from patcher.engine import imports, session
from patcher.engine.ledger import LEDGER
from patcher.engine.model import AnyChange, EnvDefault, Shim, State, Substitute
from patcher.engine.session import Session
from patcher.errors import GateClosed, InvalidSwitch, RefusedChange, TooLate
from patcher.macs.machine import Machine
from tests.engine.conftest import OURS, UPSTREAM, Library, patch

Start = Callable[..., Session]
TEXT: dict[str, Any] = {
    "distribution": "lib",
    "reviewed": "==1.*",
    "why": "w",
    "upstream": UPSTREAM,
    "until": "u",
    "needed_for": "the test",
}


@pytest.fixture(autouse=True)
def lib(library: Library) -> None:
    """A library whose package copies names from its core, a user of it, and the replacements."""
    library.package("lib", "from lib.core import f")
    library.write("lib.core", "def f(a): return 'original'\nclass C:\n    def m(self): return 'original'")
    library.write("user", "from lib.core import f")
    library.write(OURS, "def f(a): return 'replaced'\ndef m(self): return 'replaced'")


def _state(change: AnyChange) -> State:
    return LEDGER.entry(change).state


def test_patch_then_import_reaches_every_copy_and_undo_takes_it_back(start: Start) -> None:
    """The order that users are told to follow."""
    change = patch("lib.core:f", "f", expects="(a)")
    start(change)
    assert _state(change) is State.PENDING
    user = importlib.import_module("user")
    assert user.f(1) == sys.modules["lib"].f(1) == sys.modules["lib.core"].f(1) == "replaced"
    LEDGER.undo()
    assert user.f(1) == sys.modules["lib"].f(1) == sys.modules["lib.core"].f(1) == "original"


@pytest.mark.parametrize(("version", "state"), [("1.2", "applied"), ("2.2", "applied"), ("3.0", "unreviewed")])
def test_two_upstream_forms_are_two_changes_and_the_installed_version_decides(
    start: Start, library: Library, version: str, state: str
) -> None:
    """A version that neither was reviewed for gets the last one, and is reported as unreviewed."""
    library.write(OURS, "def old(a): return 'for 1.x'\ndef new(a): return 'for 2.x'")
    library.distribution("lib", version)
    old = patch("lib.core:f", "old", reviewed="==1.*")
    new = patch("lib.core:f", "new", reviewed="==2.*")
    start(old, new)
    assert importlib.import_module("user").f(1) == ("for 1.x" if version == "1.2" else "for 2.x")
    assert [entry.state.value for entry in LEDGER.entries()] == [state]


def test_reloading_a_patched_module_patches_it_again(start: Start) -> None:
    """importlib.reload runs the body through the finder."""
    start(patch("lib.core:f", "f"))
    core = importlib.import_module("lib.core")
    importlib.reload(core)
    assert core.f(1) == "replaced"
    LEDGER.undo()
    assert core.f(1) == "original"


def test_a_late_call_names_the_module_that_copied_and_changes_nothing(start: Start) -> None:
    """TooLate says which module holds what, before anything is touched."""
    user = importlib.import_module("user")
    before = list(sys.meta_path)
    with pytest.raises(TooLate, match=r"(?s)user\.f holds lib\.core:f.*nothing changed.*strict=False") as error:
        start(patch("lib.core:f", "f"))
    assert "lib.f holds lib.core:f" in str(error.value)
    assert user.f(1) == "original" and sys.meta_path == before and LEDGER.entries() == []


def test_a_late_call_without_strict_patches_what_it_reaches_and_reports_the_copy(start: Start) -> None:
    """The report names the holder of the original."""
    user = importlib.import_module("user")
    change = patch("lib.core:f", "f")
    start(change, strict=False)
    assert sys.modules["lib.core"].f(1) == "replaced" and user.f(1) == "original"
    assert (
        _state(change) is State.UNREVIEWED and "user.f had already copied the original" in LEDGER.entry(change).detail
    )


def test_a_late_call_still_patches_class_attributes(start: Start) -> None:
    """A class is shared by all who copied it."""
    core = importlib.import_module("lib.core")
    start(patch("lib.core:C.m", "m"))
    assert core.C().m() == "replaced"


def test_the_class_of_a_module_has_no_copies(start: Start, library: Library) -> None:
    """It is ModuleType, which half of all modules hold: none of them has copied what the change replaces."""
    library.write(OURS, "from types import ModuleType\nclass Other(ModuleType): pass")
    core = importlib.import_module("lib.core")
    change = patch("lib.core:__class__", "Other")
    start(change)
    assert type(core).__name__ == "Other" and LEDGER.entry(change).detail == ""


def test_a_copy_of_a_change_that_is_not_required_does_not_stop_a_late_call(start: Start) -> None:
    """It is reported only."""
    importlib.import_module("user")
    change = patch("lib.core:f", "f", needed_for=None)
    start(change)
    assert "user.f had already copied" in LEDGER.entry(change).detail


def test_a_refusal_is_raised_at_the_import_where_there_is_no_gate(start: Start) -> None:
    """Outside of unsloth's import nobody else would see it."""
    change = patch("lib.core:f", "f", expects="(b)")
    start(change)
    with pytest.raises(RefusedChange, match=r"(?s)lib\.core:f.*\(b\).*found: +\(a\)"):
        importlib.import_module("user")
    assert _state(change) is State.REFUSED


def test_a_refusal_of_what_is_imported_already_undoes_everything(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """patch_for_mac raises, and the process is as before the call."""
    monkeypatch.delenv("ENGINE_DEFAULT", raising=False)
    core = importlib.import_module("lib.core")
    variable = EnvDefault(name="ENGINE_DEFAULT", value="1", **TEXT)
    before = list(sys.meta_path)
    with pytest.raises(RefusedChange):
        start(variable, patch("lib.core:C.m", "m"), patch("lib.core:C.gone", "m"))
    assert core.C().m() == "original" and sys.meta_path == before and "ENGINE_DEFAULT" not in os.environ


def test_without_strict_a_refusal_is_reported_only(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """The import goes on with the original, and a warning says so."""
    change = patch("lib.core:f", "f", expects="(b)")
    start(change, strict=False)
    assert importlib.import_module("user").f(1) == "original"
    assert _state(change) is State.REFUSED and "lib.core:f" in caplog.text


def test_a_switch_that_became_wrong_since_is_a_refusal(start: Start) -> None:
    """The variable is read at the import, which it does not end."""

    def ask(here: Machine) -> str | None:
        raise InvalidSwitch("PATCHER_ODD is neither on nor off")

    change = patch("lib.core:f", "f", needed_for=None, skip=ask)
    start(change)
    assert importlib.import_module("user").f(1) == "original"
    assert _state(change) is State.REFUSED and "PATCHER_ODD" in LEDGER.entry(change).detail


def test_a_change_that_is_not_required_may_be_refused(start: Start) -> None:
    """Neither the import nor the gate fails."""
    change = patch("lib.core:f", "f", expects="(b)", needed_for=None)
    start(change)
    importlib.import_module("user")
    assert _state(change) is State.REFUSED


def test_what_torch_lacks_is_refused_where_training_begins(
    start: Start, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody imports torch: a script that only asks a model goes on. The Trainer is a gate, and so is unsloth."""
    monkeypatch.setattr(session, "_library_of", lambda change: "torch" if change.module.startswith("lib.") else "")
    monkeypatch.setattr(session, "TRAINER", "trainer")
    library.write("trainer", "import lib.core")
    library.write("unsloth", "try:\n    import trainer\nexcept Exception:\n    pass")
    start(patch("lib.core:f", "f", expects="(b)"))
    assert importlib.import_module("user").f(1) == "original"
    for _ in range(2):
        with pytest.raises(GateClosed, match=r"(?s)1 change.*lib\.core:f.*\(b\).*\(a\).*trainer is not imported"):
            importlib.import_module("trainer")
    with pytest.raises(GateClosed, match=r"(?s)1 change.*lib\.core:f.*unsloth is not imported"):
        importlib.import_module("unsloth")


@pytest.mark.parametrize(("version", "opens"), [("1.3", True), ("1.4", False)])
def test_a_module_that_had_not_come_yet_closes_no_gate(
    start: Start, library: Library, version: str, opens: bool
) -> None:
    """An earlier release has nothing to be changed; a later one has lost it."""
    library.distribution("lib", version)
    library.write("unsloth", "import lib")
    change = patch("lib.gone:f", "f", since="1.4")
    start(change)
    if opens:
        importlib.import_module("unsloth")
    else:
        with pytest.raises(GateClosed, match=r"lib\.gone"):
            importlib.import_module("unsloth")
    assert _state(change) is (State.SKIPPED if opens else State.REFUSED)


# -- the gate ------------------------------------------------------------------------------------------------------

SWALLOWING = "try:\n    import unsloth.kernels\nexcept Exception:\n    pass\n"


@pytest.mark.parametrize("strict", [True, False])
def test_the_gate_shows_a_refusal_that_upstream_swallowed(
    start: Start, library: Library, strict: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """`import unsloth` fails with what was refused although it guards its own imports; strict=False warns."""
    library.package("unsloth", SWALLOWING)
    library.write("unsloth.kernels", "def f(other): pass")
    start(patch("unsloth.kernels:f", "f", expects="(a)"), strict=strict)
    if not strict:
        importlib.import_module("unsloth")
        assert "unsloth.kernels:f" in caplog.text
        return
    with pytest.raises(GateClosed, match=r"(?s)1 change.*unsloth\.kernels:f.*\(a\).*\(other\).*strict=False"):
        importlib.import_module("unsloth")
    assert "unsloth" not in sys.modules


def test_what_unsloth_was_not_made_for_is_told(
    start: Start, library: Library, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the libraries that are changed; of an excluded version the part of the requirement that excludes it."""
    library.package("unsloth", "")
    library.write("lib", "def f(a): pass")
    library.distribution("unsloth", "9.1", "lib>=1.0,<2.0", "lib!=2.1; extra == 'more'", "other<1", "?", "absent>3")
    library.distribution("lib", "2.1")
    library.distribution("other", "5.0")
    start(patch("lib:f", "f"))
    importlib.import_module("unsloth")
    (told,) = [record.getMessage() for record in caplog.records if "asks for" in record.getMessage()]
    assert "the installed unsloth asks for other versions: lib<2.0 (2.1 is installed). With" in told


@pytest.mark.parametrize(("version", "told"), [("2026.8.22", True), ("2026.9.12", False)])
def test_what_goes_wrong_on_every_device_is_told(
    start: Start, library: Library, caplog: pytest.LogCaptureFixture, version: str, told: bool
) -> None:
    """With the versions that do it, and with no others."""
    library.package("unsloth", "")
    library.distribution("unsloth", version)
    library.distribution("transformers", "5.5.0")
    start()
    importlib.import_module("unsloth")
    assert ("with unsloth, transformers: Gemma 2 trains wrong" in caplog.text) is told


def test_the_collector_waits_until_unsloth_is_there(start: Start, library: Library) -> None:
    """Its import is the longest of all; afterwards garbage is collected as before."""
    library.package("unsloth", "import gc\nduring = gc.isenabled()")
    start()
    assert gc.isenabled()
    assert importlib.import_module("unsloth").during is False
    assert gc.isenabled()


def test_the_gate_shows_a_replacement_that_could_not_be_imported(start: Start, library: Library) -> None:
    """An ImportError in our own code is not taken for a missing optional library."""
    library.package("unsloth", SWALLOWING.replace("Exception", "ImportError"))
    library.write("unsloth.kernels", "def f(a): pass")
    library.write(OURS, "import no_such_library")
    start(patch("unsloth.kernels:f", "f"))
    with pytest.raises(GateClosed, match="No module named 'no_such_library'"):
        importlib.import_module("unsloth")


def test_the_gate_shows_a_module_that_upstream_no_longer_has(start: Start, library: Library) -> None:
    """A renamed kernel file would otherwise stay pending for ever."""
    library.package("unsloth", "import unsloth.kernels.new_name")
    library.package("unsloth.kernels", "")
    library.write("unsloth.kernels.new_name", "def f(a): pass")
    start(patch("unsloth.kernels.old_name:f", "f"))
    with pytest.raises(GateClosed, match=r"no module unsloth\.kernels\.old_name"):
        importlib.import_module("unsloth")


def test_the_gate_is_open_without_a_module_that_training_does_not_need(start: Start, library: Library) -> None:
    """The report says that upstream no longer has it."""
    library.package("unsloth", "")
    library.package("unsloth.kernels", "")
    change = patch("unsloth.old_name:f", "f", needed_for=None)
    start(change)
    importlib.import_module("unsloth")
    assert _state(change) is State.REFUSED and "no module unsloth.old_name" in LEDGER.entry(change).detail


def test_the_gate_shows_a_module_that_was_imported_past_the_finder(start: Start, library: Library) -> None:
    """Another import hook in front of ours can hide a module from it."""
    library.package(
        "unsloth", "import sys, types\nsys.modules['unsloth.kernels'] = types.ModuleType('unsloth.kernels')"
    )
    start(patch("unsloth.kernels:f", "f"))
    with pytest.raises(GateClosed, match=r"unsloth\.kernels was imported past"):
        importlib.import_module("unsloth")


def test_the_gate_is_open_for_what_is_imported_later(start: Start, library: Library) -> None:
    """A module that exists and has not been imported yet is patched when it is."""
    library.package("unsloth", "")
    library.write("unsloth.later", "def f(a): return 'original'")
    start(patch("unsloth.later:f", "f"))
    importlib.import_module("unsloth")
    assert importlib.import_module("unsloth.later").f(1) == "replaced"


@pytest.mark.parametrize("package", ["unsloth", "unsloth_zoo"])
def test_a_call_after_unsloth_says_so(start: Start, library: Library, package: str) -> None:
    """Unsloth copies everything while it is imported: nothing can be done any more, strict or not."""
    library.package(package, "")
    importlib.import_module(package)
    for strict in (True, False):
        with pytest.raises(TooLate, match=rf"(?s)after `import {package}`.*nothing changed.*top of the script"):
            start(strict=strict)


# -- substitutes, shims, variables ---------------------------------------------------------------------------------


def test_a_substitute_holds_during_the_body_and_its_constants_after_it(start: Start, library: Library) -> None:
    """Who copies names from the module gets the new ones; the conditions end with the body."""
    library.package("lib", "from lib.device import TYPE as copied")
    library.write("lib.device", f"import {OURS}\nTYPE = 'cpu'\nduring = {OURS}.inside")
    library.write(
        OURS,
        "from contextlib import contextmanager\ninside = False\n@contextmanager\ndef around():\n    global inside\n"
        "    inside = True\n    try:\n        yield\n    finally:\n        inside = False\n",
    )
    change = Substitute(module="lib.device", around=f"{OURS}:around", constants={"TYPE": "mps"}, **TEXT)
    start(change)
    lib = importlib.import_module("lib")
    assert lib.copied == "mps" and sys.modules["lib.device"].during and not sys.modules[OURS].inside
    assert _state(change) is State.UNREVIEWED


def test_a_substitute_whose_conditions_cannot_be_imported_is_refused(start: Start, library: Library) -> None:
    """The import of the module fails with the reason, and not with an ImportError."""
    library.write("lib.device", "TYPE = 'cpu'")
    change = Substitute(module="lib.device", around="no_such_library:around", **TEXT)
    start(change)
    with pytest.raises(RefusedChange, match="no_such_library"):
        importlib.import_module("lib.device")
    assert _state(change) is State.REFUSED


def test_a_substitute_that_the_machine_does_not_need_is_skipped(start: Start, library: Library) -> None:
    """Neither its conditions nor its constants are used."""
    library.write("lib.device", "TYPE = 'cpu'")
    change = Substitute(
        module="lib.device", around="nowhere:around", constants={"TYPE": "mps"}, skip=lambda _: "as is", **TEXT
    )
    start(change)
    assert importlib.import_module("lib.device").TYPE == "cpu" and _state(change) is State.SKIPPED


@pytest.mark.parametrize("real", [True, False])
def test_a_shim_stands_in_only_where_nothing_real_is_installed(
    start: Start, library: Library, monkeypatch: pytest.MonkeyPatch, real: bool
) -> None:
    """Changes of a library that a shim stands in for are skipped; those of a real one are applied."""
    monkeypatch.setattr(imports, "SHIMS", library.folder / "shims")
    (library.folder / "shims" / "fakelib").mkdir(parents=True)
    (library.folder / "shims" / "fakelib" / "__init__.py").write_text("origin = 'shim'")
    if real:
        library.package("fakelib", "origin = 'real'\ndef f(a): return 'original'")
    shim = Shim(module="fakelib", version="1.0+patcher", **{**TEXT, "distribution": "fakelib"})
    change = patch("fakelib:f", "f", distribution="fakelib")
    start(shim, change)
    assert importlib.import_module("fakelib").origin == ("real" if real else "shim")
    assert _state(shim) is (State.SKIPPED if real else State.APPLIED)
    assert _state(change) is (State.UNREVIEWED if real else State.SKIPPED)
    assert ("a real fakelib is installed" if real else "stands in as 1.0+patcher") in LEDGER.entry(shim).detail


@pytest.mark.parametrize("strict", [True, False])
def test_a_shim_that_comes_after_a_module_that_missed_it_is_too_late(
    start: Start, library: Library, monkeypatch: pytest.MonkeyPatch, strict: bool
) -> None:
    """The module has gone on without it; one that has not is left in peace."""
    monkeypatch.setattr(imports, "SHIMS", library.folder / "shims")
    library.write("guarded", "try:\n    import fakelib\nexcept ImportError:\n    fakelib = None")
    library.write("unguarded", "fakelib = 1")
    importlib.import_module("guarded")
    importlib.import_module("unguarded")
    missed = ("guarded:fakelib", "unguarded:fakelib", "not_imported:fakelib")
    shim = Shim(module="fakelib", version="1.0+patcher", missed_by=missed, **{**TEXT, "distribution": "fakelib"})
    if strict:
        with pytest.raises(TooLate, match=r"found: +guarded was imported without fakelib\n"):
            start(shim)
        assert LEDGER.entries() == []
    else:
        start(shim, strict=False)
        assert LEDGER.entry(shim).detail == "stands in as 1.0+patcher; guarded was imported without fakelib"


def test_starting_again_after_undo_does_not_take_our_own_copies_for_late_ones(start: Start, library: Library) -> None:
    """A replacement that keeps the original under a name of its own has not copied it too early."""
    library.write(OURS, "from lib.core import f as kept\ndef f(a): return 'replaced'")
    library.package("lib", "")
    change = patch("lib.core:f", "f")
    start(change)
    importlib.import_module("lib.core")
    LEDGER.undo()
    start(change)
    assert sys.modules["lib.core"].f(1) == "replaced"


def test_variables_are_set_where_the_user_set_nothing_and_restored(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user's value stays, undo removes ours, and one that the user changed since stays too."""
    monkeypatch.setenv("ENGINE_USER", "theirs")
    for name in ("ENGINE_OURS", "ENGINE_CHANGED", "ENGINE_DERIVED", "ENGINE_SKIPPED"):
        monkeypatch.delenv(name, raising=False)
    changes = [EnvDefault(name=f"ENGINE_{name}", value="ours", **TEXT) for name in ("USER", "OURS", "CHANGED")]
    derived = EnvDefault(name="ENGINE_DERIVED", value="x", derive=lambda env: env["ENGINE_USER"] + "!", **TEXT)
    skipped = EnvDefault(name="ENGINE_SKIPPED", value="x", skip=lambda _: "no need", **TEXT)
    start(*changes, derived, skipped)
    assert {name: value for name, value in os.environ.items() if name.startswith("ENGINE_")} == {
        "ENGINE_USER": "theirs",
        "ENGINE_OURS": "ours",
        "ENGINE_CHANGED": "ours",
        "ENGINE_DERIVED": "theirs!",
    }
    assert LEDGER.entry(changes[0]).detail == "the user has set ENGINE_USER=theirs"
    monkeypatch.setenv("ENGINE_CHANGED", "since then")
    LEDGER.undo()
    assert os.environ["ENGINE_USER"] == "theirs" and os.environ["ENGINE_CHANGED"] == "since then"
    assert "ENGINE_OURS" not in os.environ and "ENGINE_DERIVED" not in os.environ


def test_a_variable_that_is_set_too_late_is_reported(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """The library that reads it when it is imported has been imported."""
    importlib.import_module("lib")
    change = EnvDefault(name="ENGINE_LATE", value="1", before="lib", **TEXT)
    start(change)
    assert "lib was imported before patch_for_mac()" in LEDGER.entry(change).detail
    assert "ENGINE_LATE" in caplog.text


def test_every_change_is_logged_as_it_is_applied(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """UNSLOTH_VERBOSE prints these lines."""
    caplog.set_level(logging.INFO, logger="patcher")
    start(EnvDefault(name="ENGINE_LOGGED", value="1", **TEXT), patch("lib.core:f", "f"))
    assert "applied    $ENGINE_LOGGED" in caplog.text and "lib.core:f" not in caplog.text
    importlib.import_module("user")
    assert "unreviewed lib.core:f" in caplog.text
