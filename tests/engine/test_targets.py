"""What a change names is found, and compared with the installed library."""

from __future__ import annotations

import importlib
import inspect
import sys

import pytest

from patcher.engine import targets
from patcher.engine.model import EnvDefault, Shim
from patcher.errors import RefusedChange
from tests.engine.conftest import Library, patch

TEXT = {"distribution": "lib", "reviewed": "==1.*", "why": "", "upstream": "", "until": "", "needed_for": None}


def test_a_reference_imports_its_module_and_follows_the_dots(library: Library) -> None:
    library.write("lib.deep", "class A:\n    class B:\n        value = 3\n")
    assert "lib.deep" not in sys.modules
    assert targets.load("lib.deep:A.B.value") == 3


def test_what_cannot_be_loaded_is_a_refusal_with_its_cause(library: Library) -> None:
    """No ImportError, which upstream would swallow; it names change, version, reference and error."""
    library.write("lib", "import no_such_library")
    library.distribution("lib", "1.4")
    with pytest.raises(RefusedChange) as caught:
        targets.load_for(patch("lib:f", "f"), "lib:f")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
    for part in ("lib:f", "lib 1.4", "ModuleNotFoundError", "no_such_library", "unchanged"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("installed", "reviewed"),
    [("1.4", True), ("1.5.dev3", True), ("1.4+cpu", True), ("2.0", False), (None, False), ("of today", False)],
)
def test_which_versions_count_as_reviewed(installed: str | None, reviewed: bool) -> None:
    """Prereleases and local versions of what was read do; a version that is none does not."""
    assert targets.is_reviewed(patch("lib:f", "f"), installed) is reviewed


def test_shims_and_variables_depend_on_no_version() -> None:
    for change in (Shim(module="lib", version="1", **TEXT), EnvDefault(name="LIB", value="1", **TEXT)):  # type: ignore[arg-type]
        assert targets.is_reviewed(change, None)


def test_the_holder_of_a_name_and_what_is_missing_on_the_way(library: Library) -> None:
    """The last name need not be there: a patch may add it."""
    library.write("lib", "class A:\n    class B: pass\n")
    lib = importlib.import_module("lib")
    assert targets.resolve(patch("lib:A.B.new", "f"), lib) == (lib.A.B, "new")
    assert targets.resolve(patch("lib:new", "f"), lib) == (lib, "new")
    with pytest.raises(RefusedChange, match="no such name") as caught:
        targets.resolve(patch("lib:A.C.f", "f"), lib)
    assert "C in lib" in str(caught.value)


def test_parameters_are_compared_and_both_lists_are_said() -> None:
    """Another list, and what has none."""
    change = patch("lib:f", "f", expects="(a, b=None)")
    targets.check_signature(change, lambda a, b=3: None)
    with pytest.raises(RefusedChange) as caught:
        targets.check_signature(change, lambda a, c=3: None)
    assert "(a, b=None)" in str(caught.value) and "(a, c=3)" in str(caught.value)
    with pytest.raises(RefusedChange, match="no signature"):
        targets.check_signature(change, 3)


@pytest.mark.parametrize(
    ("found", "fits"),
    [("a, b=1, c=2", True), ("a, b=1", True), ("a", True), ("a, c=2", True), ("b=1, c=2", False), ("a, d=1", False)],
)
def test_optional_parameters_may_be_lacking(library: Library, found: str, fits: bool) -> None:
    """Those that the patch names, as releases from before they came; no other one, and none may be new."""
    library.write("lib", f"def f({found}): pass")
    one = patch("lib:f", "f", expects="(a, b=None, c=None)", may_lack=("b", "c"))
    assert targets.is_expected(one, inspect.signature(importlib.import_module("lib").f)) is fits


@pytest.mark.parametrize(
    ("version", "early", "late"), [("1.3", True, False), ("1.4", False, True), (None, False, False)]
)
def test_versions_before_a_target_came_and_since_a_change_is_not_needed(
    version: str | None, early: bool, late: bool
) -> None:
    """Of what is not installed, and of a change that names no version, nothing is known."""
    assert targets.predates(patch("lib:f", "f", since="1.4"), version) is early
    assert bool(targets.outdated(patch("lib:f", "f", before="1.4"), version)) is late
    assert not targets.predates(patch("lib:f", "f"), version)
    assert targets.outdated(patch("lib:f", "f"), version) is None


def test_modules_that_hold_a_copy_are_named(library: Library) -> None:
    """The module that defines it is none of them."""
    library.write("lib", "def f(): pass\n")
    library.write("user", "from lib import f as mine\n")
    lib = importlib.import_module("lib")
    importlib.import_module("user")
    assert list(targets.holders_of({id(lib.f): "lib:f"})) == [("lib:f", "user.mine")]


def test_the_version_of_what_is_not_installed_is_none(library: Library) -> None:
    library.distribution("lib", "1.4")
    assert targets.installed_version("lib") == "1.4" and targets.installed_version("no-such-library") is None
