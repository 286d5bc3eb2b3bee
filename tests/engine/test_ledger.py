"""The ledger: what it sets, what it refuses, and that undo leaves everything as it was."""

from __future__ import annotations

import functools
import importlib
import sys
import threading
from typing import Any

import pytest

from patcher.engine.ledger import Ledger
from patcher.engine.model import State, Substitute
from patcher.engine.targets import load
from patcher.errors import UndoConflict
from tests.engine.conftest import OURS, UPSTREAM, Library, patch
from tests.machines import M3_MAX

LIB = """
def f(a, b=1):
    return "original f"

class Base:
    def method(self):
        return "original method"
    @staticmethod
    def static(x):
        return "original static"
    @classmethod
    def klass(cls, x):
        return "original klass"

class Child(Base):
    _value = 3
    def own(self):
        return "original own"
    @property
    def value(self):
        return self._value
    @value.setter
    def value(self, new):
        self._value = new

LIMIT = 7
"""

FIXES = """
def f(a, b=1):
    return "replaced f"
def method(self):
    return "replaced method"
def static(x):
    return f"replaced static {x}"
def klass(cls, x):
    return f"replaced klass {cls.__name__} {x}"
def value(self):
    return -self._value
class Base:
    pass
LIMIT = 8
"""


@pytest.fixture
def lib(library: Library) -> Any:
    """A module with a function, classes and a constant, and the replacements for them."""
    library.write("lib", LIB)
    library.write(OURS, FIXES)
    return importlib.import_module("lib")


def _everything(module: Any) -> dict[str, Any]:
    """Each name of the module, and each name of its classes."""
    names = {name: value for name, value in vars(module).items() if name != "__builtins__"}
    for name, value in list(names.items()):
        if isinstance(value, type):
            names.update({f"{name}.{inner}": kept for inner, kept in vars(value).items()})
    return names


def test_a_function_is_replaced_reported_and_restored(lib: Any, library: Library, ledger: Ledger) -> None:
    """A patched function answers as the replacement; undo gives the original back, and forgets it."""
    library.distribution("lib", "1.4")
    change, before = patch("lib:f", "f", expects="(a, b=None)"), lib.f
    entry = ledger.apply(change, lib)
    assert (entry.state, entry.installed, lib.f(1)) == (State.APPLIED, "1.4", "replaced f")
    assert ledger.original("lib:f") is before
    ledger.undo()
    assert lib.f is before and ledger.entries() == []
    with pytest.raises(KeyError):
        ledger.original("lib:f")


@pytest.mark.parametrize("version", ["2.0", "not.a.version"])
def test_a_version_nobody_read_is_patched_and_reported_as_unreviewed(
    lib: Any, library: Library, ledger: Ledger, version: str
) -> None:
    """Shape decides, version informs."""
    library.distribution("lib", version)
    entry = ledger.apply(patch("lib:f", "f", expects="(a, b=None)"), lib)
    assert (entry.state, entry.installed, lib.f(1)) == (State.UNREVIEWED, version, "replaced f")


@pytest.mark.parametrize(
    "expects", ["(a, b)", "(a, c=1)", "(a, *, b=1)", "(a, b=1, *rest)", "(b=1, a=2)", "(a, b=1, **more)", "(a)"]
)
def test_another_signature_is_refused_and_left_alone(lib: Any, library: Library, ledger: Ledger, expects: str) -> None:
    """Names, order, kinds and presence of defaults must agree; the refusal says what was expected and found."""
    library.distribution("lib", "1.4")
    before = lib.f
    entry = ledger.apply(patch("lib:f", "f", expects=expects), lib)
    assert entry.state is State.REFUSED and lib.f is before
    for part in ("lib:f", "lib 1.4", expects, "(a, b=1)", "unchanged", "pip install 'lib==1.*'"):
        assert part in entry.detail


@pytest.mark.parametrize("target", ["lib:gone", "lib:Gone.method", "lib:Base.gone"])
def test_a_missing_name_is_refused(lib: Any, ledger: Ledger, target: str) -> None:
    """Nothing is invented where upstream has renamed its target."""
    before = _everything(lib)
    entry = ledger.apply(patch(target, "f"), lib)
    assert entry.state is State.REFUSED and "no such name" in entry.detail
    assert _everything(lib) == before


def test_a_target_that_cannot_be_set_or_has_no_signature_is_refused(lib: Any, ledger: Ledger) -> None:
    """Classes of C extensions refuse new attributes; constants have no parameters."""
    lib.Frozen = int
    assert "cannot set" in ledger.apply(patch("lib:Frozen.bit_length", "method"), lib).detail
    assert "no signature" in ledger.apply(patch("lib:LIMIT", "LIMIT", expects="(a)"), lib).detail
    ledger.undo()
    assert lib.LIMIT == 7


def test_a_replacement_that_cannot_be_imported_is_refused_with_its_error(
    lib: Any, library: Library, ledger: Ledger
) -> None:
    """Upstream's optional-import guards never see an ImportError of ours."""
    library.write("enginebroken", "import no_such_library")
    change = patch("lib:f", "f")
    object.__setattr__(change, "replacement", "enginebroken:f")
    entry = ledger.apply(change, lib)
    assert entry.state is State.REFUSED and isinstance(entry.error, ModuleNotFoundError)
    assert "enginebroken:f" in entry.detail and "No module named 'no_such_library'" in entry.detail
    assert lib.f(1) == "original f"


def test_static_class_methods_and_properties_keep_their_form(lib: Any, ledger: Ledger) -> None:
    """Calls on instances and classes bind as they did; a property keeps its setter."""
    before = _everything(lib)
    for name in ("static", "klass"):
        assert ledger.apply(patch(f"lib:Base.{name}", name), lib).state is not State.REFUSED
    ledger.apply(patch("lib:Child.value", "value", expects="(self)"), lib)
    child = lib.Child()
    assert (lib.Base.static(1), child.static(2)) == ("replaced static 1", "replaced static 2")
    assert (lib.Base.klass(1), child.klass(2)) == ("replaced klass Base 1", "replaced klass Child 2")
    child.value = 5
    assert child.value == -5
    assert ledger.original("lib:Base.klass")(lib.Base, 1) == "original klass"
    assert ledger.original("lib:Child.value")(child) == 5
    ledger.undo()
    assert _everything(lib) == before


def test_inherited_names_are_patched_on_the_subclass_only(lib: Any, ledger: Ledger) -> None:
    """The base keeps its own; undo removes the subclass's name again."""
    before = _everything(lib)
    for name in ("method", "static", "klass"):
        ledger.apply(patch(f"lib:Child.{name}", name), lib)
    child = lib.Child()
    assert (child.method(), child.static(1), child.klass(1)) == (
        "replaced method",
        "replaced static 1",
        "replaced klass Child 1",
    )
    assert lib.Base().method() == "original method" and lib.Base.static(1) == "original static"
    ledger.undo()
    assert _everything(lib) == before


def test_constants_and_classes_are_replaced_too(lib: Any, ledger: Ledger) -> None:
    """A replacement need not be a function."""
    before = _everything(lib)
    ledger.apply(patch("lib:LIMIT", "LIMIT"), lib)
    ledger.apply(patch("lib:Base", "Base"), lib)
    assert lib.LIMIT == 8 and lib.Base is load(f"{OURS}:Base")
    ledger.undo()
    assert _everything(lib) == before


def test_an_added_name_is_removed_and_an_existing_one_kept(lib: Any, ledger: Ledger) -> None:
    """adds=True supplies what upstream lacks, and steps back when upstream supplies it."""
    before = _everything(lib)
    assert ledger.apply(patch("lib:new", "f", adds=True), lib).state is State.UNREVIEWED
    kept = ledger.apply(patch("lib:Child.method", "method", adds=True), lib)
    assert (kept.state, kept.detail) == (State.SKIPPED, "lib has Child.method itself")
    assert lib.new(1) == "replaced f" and lib.Child().method() == "original method"
    ledger.undo()
    assert _everything(lib) == before


def test_a_change_is_skipped_where_the_machine_does_not_need_it(lib: Any, ledger: Ledger) -> None:
    """The reason for skipping is in the report; the target is left alone."""
    ledger.machine = M3_MAX
    entry = ledger.apply(patch("lib:f", "f", skip=lambda here: f"not on {here.chip}"), lib)
    assert (entry.state, entry.detail, lib.f(1)) == (State.SKIPPED, "not on Apple M3 Max", "original f")


def test_applying_twice_changes_nothing(lib: Any, ledger: Ledger) -> None:
    """The second application answers with the first one's entry and does not lose the original."""
    change, before = patch("lib:f", "f"), lib.f
    assert ledger.apply(change, lib) is ledger.apply(change, lib)
    ledger.undo()
    assert lib.f is before


def test_a_module_whose_body_ran_again_is_patched_again(lib: Any, ledger: Ledger) -> None:
    """After importlib.reload the new original is replaced, and the new one is what undo restores."""
    changes = [patch("lib:f", "f"), patch("lib:new", "f", adds=True), patch("lib:Base.method", "method")]
    for change in changes:
        ledger.apply(change, lib)
    importlib.reload(lib)
    assert lib.f(1) == "original f"
    fresh = lib.f
    assert [ledger.apply(change, lib).state for change in changes] == [State.UNREVIEWED] * 3
    assert lib.f(1) == "replaced f" and lib.Base().method() == "replaced method"
    assert ledger.original("lib:f") is fresh
    ledger.undo()
    assert lib.f is fresh and not hasattr(lib, "new") and lib.Base().method() == "original method"


def test_undo_restores_copies_by_name(lib: Any, library: Library, ledger: Ledger) -> None:
    """`from lib import f` after patching took the replacement; undo gives the copy the original, ours keep theirs."""
    before = lib.f
    ledger.apply(patch("lib:f", "f"), lib)
    library.write("user", "from lib import f as renamed")
    user, ours = importlib.import_module("user"), sys.modules[OURS]
    assert user.renamed(1) == "replaced f"
    ledger.undo()
    assert user.renamed is before and ours.f(1) == "replaced f"


def test_undo_leaves_a_foreign_object_that_served_as_replacement(lib: Any, library: Library, ledger: Ledger) -> None:
    """Only copies of our own functions are copies: a borrowed one stays where it is at home."""
    library.write("other", "def borrowed(a, b=1): return 'other'")
    library.write(OURS, "from other import borrowed")
    other = importlib.import_module("other")
    home = other.borrowed
    ledger.apply(patch("lib:f", "borrowed"), lib)
    ledger.undo()
    assert other.borrowed is home and lib.f(1) == "original f"


def test_undo_refuses_when_somebody_patched_over_and_undoes_nothing(lib: Any, ledger: Ledger) -> None:
    """The error names the target and what was found there; every change stays in place."""
    ledger.apply(patch("lib:f", "f"), lib)
    ledger.apply(patch("lib:Base.method", "method"), lib)
    ours = lib.f
    lib.f = "somebody else's"
    with pytest.raises(UndoConflict, match=r"(?s)lib:f.*somebody else's.*nothing was undone"):
        ledger.undo()
    assert lib.Base().method() == "replaced method"
    del lib.f
    with pytest.raises(UndoConflict, match=r"found: +nothing"):
        ledger.undo()
    lib.f = ours
    ledger.undo()
    assert lib.f(1) == "original f" and lib.Base().method() == "original method"


def test_undo_reaches_into_a_wrapper_that_somebody_put_around_a_replacement(lib: Any, ledger: Ledger) -> None:
    """The wrapper stays, around what was there before the change; one that is put around it in turn is a conflict."""
    before = lib.f
    ledger.apply(patch("lib:f", "f"), lib)

    def wrapped(inner: Any) -> Any:
        @functools.wraps(inner)
        def wrapper(*arguments: Any) -> str:
            return f"wrapped {inner(*arguments)}"

        return wrapper

    lib.f = wrapped(lib.f)
    once = lib.f
    lib.f = wrapped(lib.f)
    with pytest.raises(UndoConflict, match="lib:f"):
        ledger.undo()
    lib.f = once
    assert lib.f(1) == "wrapped replaced f"
    ledger.undo()
    assert lib.f is once and lib.f(1) == "wrapped original f" and lib.f.__wrapped__ is before


def test_undo_runs_in_reverse_and_every_step_even_if_one_fails(lib: Any, ledger: Ledger) -> None:
    """Attributes first, then cleanups last in first out; a failing cleanup does not keep the others from running."""
    order: list[str] = []
    ledger.on_undo(lambda: order.append(f"first {lib.f(1)}"))

    def failing() -> None:
        order.append("failing")
        raise ZeroDivisionError

    ledger.on_undo(failing)
    ledger.on_undo(lambda: order.append("last"))
    ledger.apply(patch("lib:f", "f"), lib)
    with pytest.raises(ZeroDivisionError):
        ledger.undo()
    assert order == ["last", "failing", "first original f"] and ledger.entries() == []


def test_undo_forgets_what_replacements_remember(ledger: Ledger) -> None:
    """What was noted and what was said once start anew; before, there is one memory of a kind."""
    ledger.memory(list).append(1)
    assert ledger.memory(list) == [1] and (ledger.is_news("a"), ledger.is_news("a"), ledger.is_news("b")) == (
        True, False, True
    )  # fmt: skip
    ledger.undo()
    assert ledger.memory(list) == [] and ledger.is_news("a")


def test_two_values_on_one_name_are_undone_to_the_first(lib: Any, ledger: Ledger) -> None:
    """A substituted constant that is then patched: undo goes through both."""
    text: dict[str, Any] = dict.fromkeys(("why", "until", "needed_for"), "a test")
    text |= {"upstream": UPSTREAM, "distribution": "lib", "reviewed": "==1.*"}
    ledger.apply(Substitute(module="lib", constants={"LIMIT": 100}, **text), lib)
    ledger.apply(patch("lib:LIMIT", "LIMIT"), lib)
    assert lib.LIMIT == 8
    ledger.undo()
    assert lib.LIMIT == 7


def test_a_substitute_sets_constants_and_references_and_refuses_missing_names(lib: Any, ledger: Ledger) -> None:
    """Names that the module does not have are named in the refusal, and nothing is set."""
    text: dict[str, Any] = dict.fromkeys(("why", "until", "needed_for"), "a test")
    text |= {"upstream": UPSTREAM, "distribution": "lib", "reviewed": "==1.*", "module": "lib"}
    refused = ledger.apply(Substitute(constants={"LIMIT": 1, "GONE": 2}, **text), lib)
    assert refused.state is State.REFUSED and "GONE" in refused.detail and lib.LIMIT == 7
    change = Substitute(constants={"LIMIT": 1}, references={"f": f"{OURS}:f"}, **text)
    assert ledger.apply(change, lib).state is State.UNREVIEWED
    assert lib.LIMIT == 1 and lib.f(1) == "replaced f"
    ledger.undo()
    assert lib.LIMIT == 7 and lib.f(1) == "original f"


def test_names_that_a_substitute_may_lack_are_left_out(lib: Any, ledger: Ledger) -> None:
    """Those that it names, and no other."""
    text: dict[str, Any] = dict.fromkeys(("why", "until", "needed_for"), "a test")
    text |= {"upstream": UPSTREAM, "distribution": "lib", "reviewed": "==1.*", "module": "lib"}
    change = Substitute(constants={"LIMIT": 1, "GONE": 2}, may_lack=("GONE",), **text)
    assert ledger.apply(change, lib).state is State.UNREVIEWED
    assert lib.LIMIT == 1 and not hasattr(lib, "GONE")
    refused = ledger.apply(Substitute(constants={"LIMIT": 1, "LOST": 2}, may_lack=("GONE",), **text), lib)
    assert refused.state is State.REFUSED


@pytest.mark.parametrize(("version", "state"), [("1.3", State.SKIPPED), ("1.4", State.REFUSED)])
@pytest.mark.parametrize("target", ["lib:gone", "lib:Gone.method"])
def test_what_had_not_come_yet_is_skipped(
    lib: Any, library: Library, ledger: Ledger, version: str, state: State, target: str
) -> None:
    """In an earlier release there is nothing to change; in a later one the same name is missing."""
    library.distribution("lib", version)
    entry = ledger.apply(patch(target, "f", since="1.4"), lib)
    assert entry.state is state and ("1.4" in entry.detail)


def test_what_is_there_is_changed_whatever_its_version(lib: Any, library: Library, ledger: Ledger) -> None:
    """Shape decides: the version that a change names says only why a name is missing."""
    library.distribution("lib", "1.3")
    assert ledger.apply(patch("lib:f", "f", since="1.4"), lib).state is State.APPLIED
    assert lib.f(1) == "replaced f"


@pytest.mark.parametrize(("version", "replaced"), [("1.3", True), ("1.4", False)])
def test_a_release_may_do_without_a_change(
    lib: Any, library: Library, ledger: Ledger, version: str, replaced: bool
) -> None:
    """From the release on that the change names."""
    library.distribution("lib", version)
    entry = ledger.apply(patch("lib:f", "f", before="1.4"), lib)
    assert (entry.state is State.APPLIED) == replaced == (lib.f(1) == "replaced f")
    assert replaced or "lib does without it since 1.4" in entry.detail


def test_a_value_of_the_meanwhile_is_gone_after_an_error(lib: Any, ledger: Ledger) -> None:
    """What was there is there again, a replacement too."""
    ledger.apply(patch("lib:LIMIT", "LIMIT"), lib)
    with pytest.raises(ZeroDivisionError), ledger.meanwhile(lib, "LIMIT", 3):
        assert lib.LIMIT == 3
        1 / 0  # noqa: B018
    assert lib.LIMIT == 8
    ledger.undo()
    assert lib.LIMIT == 7


def test_no_lock_is_held_while_a_replacement_is_imported(lib: Any, library: Library, ledger: Ledger) -> None:
    """Another thread can apply a change while a replacement's module body runs: no order of locks can deadlock."""
    library.write("engineslow", "import enginegate\nenginegate.wait()\ndef f(a, b=1): return 'slow'")
    library.write(
        "enginegate",
        "import threading\nentered, leave = threading.Event(), threading.Event()\n"
        "def wait():\n    entered.set()\n    assert leave.wait(20)",
    )
    gate = importlib.import_module("enginegate")
    slow = patch("lib:f", "f")
    object.__setattr__(slow, "replacement", "engineslow:f")
    thread = threading.Thread(target=ledger.apply, args=(slow, lib))
    thread.start()
    assert gate.entered.wait(20)
    other = threading.Thread(target=ledger.apply, args=(patch("lib:LIMIT", "LIMIT"), lib))
    other.start()
    other.join(10)
    finished_meanwhile = not other.is_alive()
    gate.leave.set()
    thread.join(20)
    other.join(20)
    assert finished_meanwhile and lib.LIMIT == 8 and lib.f(1) == "slow"
    ledger.undo()
