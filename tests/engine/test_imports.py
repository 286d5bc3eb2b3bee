"""The finder: callbacks right after a body, conditions around it, shims, and modules that look as they always do."""

from __future__ import annotations

import gc
import importlib
import importlib.machinery
import importlib.metadata
import importlib.resources
import importlib.util
import inspect
import pkgutil
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from patcher import environment
from patcher.engine import imports
from patcher.engine.imports import Finder
from patcher.engine.model import Shim
from tests.engine.conftest import UPSTREAM, Library

FirstFinder = Callable[[Callable[[str], object]], None]


@pytest.fixture
def finder() -> Iterator[Finder]:
    """A finder that is installed while the test runs."""
    before = list(sys.meta_path)
    finder = Finder()
    finder.install()
    yield finder
    finder.remove()
    assert sys.meta_path == before


def _mark(module: ModuleType) -> None:
    module.marks = [*getattr(module, "marks", []), module.value]  # type: ignore[attr-defined]


def test_a_callback_runs_after_the_body_and_before_anyone_copies(library: Library, finder: Finder) -> None:
    """`from lib.core import f` in the package's own __init__ already takes the replaced function."""
    library.package("lib", "from lib.core import f")
    library.write("lib.core", "def f(): return 'original'")
    finder.after("lib.core", lambda module: setattr(module, "f", "replaced"))
    assert importlib.import_module("lib").f == "replaced"


def test_a_watched_module_looks_like_any_other(library: Library, finder: Finder) -> None:
    """Loader, spec, source, package data and pickling of the spec are those of the module's own loader."""
    library.package("lib", "value = 1\ndef f():\n    return 'source'\n")
    (library.folder / "lib" / "data.txt").write_text("data")
    finder.after("lib", _mark)
    found = importlib.util.find_spec("lib")
    assert found is not None and found.loader is not None
    assert found.loader.get_code("lib") is not None and found.loader.is_package("lib")  # type: ignore[attr-defined]
    lib = importlib.import_module("lib")
    assert lib.marks == [1]
    assert type(lib.__loader__) is type(lib.__spec__.loader) is importlib.machinery.SourceFileLoader
    assert "return 'source'" in inspect.getsource(lib.f)
    assert importlib.resources.files("lib").joinpath("data.txt").read_text() == "data"
    assert pkgutil.get_data("lib", "data.txt") == b"data"


def test_unwatched_modules_are_not_touched(library: Library, finder: Finder) -> None:
    """The finder answers None for every other name."""
    library.write("lib", "value = 1")
    finder.after("other", _mark)
    assert finder.find_spec("lib", None) is None
    assert not hasattr(importlib.import_module("lib"), "marks")


def test_reload_and_import_after_deletion_call_back_again(library: Library, finder: Finder) -> None:
    """Each run of the body is followed by the callback."""
    library.write("lib", "value = 1")
    finder.after("lib", _mark)
    lib = importlib.import_module("lib")
    importlib.reload(lib)
    assert lib.marks == [1, 1]
    del sys.modules["lib"]
    assert importlib.import_module("lib").marks == [1]


def test_a_module_that_replaces_itself_is_called_back_with_what_it_became(library: Library, finder: Finder) -> None:
    """Lazy packages put another object into sys.modules; that one is what others import."""
    library.write("lib", "import sys, types\nnew = types.ModuleType('lib')\nnew.value = 2\nsys.modules['lib'] = new")
    finder.after("lib", _mark)
    assert importlib.import_module("lib").marks == [2]


def test_a_second_copy_of_a_module_is_called_back_itself(library: Library, finder: Finder) -> None:
    """A module executed from its spec, beside the one in sys.modules, gets its own callback."""
    library.write("lib", "value = 1")
    finder.after("lib", _mark)
    spec = importlib.util.find_spec("lib")
    assert spec is not None and spec.loader is not None
    first = importlib.import_module("lib")
    second = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(second)
    assert (first.marks, second.marks) == ([1], [1])


def test_what_a_callback_raises_fails_the_import(library: Library, finder: Finder) -> None:
    """A refused change is seen at the import, and the module can be imported later."""
    library.write("lib", "value = 1")
    failing = [True]

    def callback(module: ModuleType) -> None:
        if failing:
            raise RuntimeError("refused")

    finder.after("lib", callback)
    with pytest.raises(RuntimeError, match="refused"):
        importlib.import_module("lib")
    assert "lib" not in sys.modules
    failing.clear()
    assert importlib.import_module("lib").value == 1


def test_a_body_that_cannot_run_twice_does_not(library: Library, finder: Finder) -> None:
    """A library that swallows the first error meets it again; torch's body ends the process when it runs again."""
    library.package("lib", "import sys; sys.bodies = getattr(sys, 'bodies', 0) + 1")

    def callback(module: ModuleType) -> None:
        raise ValueError("refused")

    finder.after("lib", callback)
    finder.once("lib")
    try:
        for _ in range(2):
            with pytest.raises(ValueError, match="refused"):
                importlib.import_module("lib")
        assert vars(sys).pop("bodies") == 1
    finally:
        vars(sys).pop("bodies", None)


def test_conditions_hold_during_the_body_only_also_when_it_raises(
    library: Library, finder: Finder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable that is set for a body is as before when the body has ended, or failed."""
    monkeypatch.setenv("ENGINE_SET", "before")
    monkeypatch.delenv("ENGINE_UNSET", raising=False)
    values = "import os\nvalues = os.environ['ENGINE_SET'], os.environ['ENGINE_UNSET']\n"
    library.write("lib", values)
    library.write("broken", values + "raise ValueError(values)")

    @contextmanager
    def conditions() -> Iterator[None]:
        with environment.temporarily({"ENGINE_SET": "during", "ENGINE_UNSET": "during"}):
            yield

    for name in ("lib", "broken"):
        finder.around(name, conditions)
    assert importlib.import_module("lib").values == ("during", "during")
    with pytest.raises(ValueError, match="during"):
        importlib.import_module("broken")
    assert environment.value_of("ENGINE_SET") == "before" and environment.value_of("ENGINE_UNSET") is None


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_waits_for_a_body_also_when_it_raises(library: Library, finder: Finder, enabled: bool) -> None:
    """Afterwards it is on or off as before."""
    library.write("lib", "import gc\nduring = gc.isenabled()\n")
    library.write("broken", "import gc\nraise ValueError(gc.isenabled())")
    for name in ("lib", "broken"):
        finder.around(name, imports.without_collecting)
    was = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        assert importlib.import_module("lib").during is False
        with pytest.raises(ValueError, match="False"):
            importlib.import_module("broken")
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if was else gc.disable)()


def test_namespace_packages_and_zip_files_import_as_ever(
    library: Library, finder: Finder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package without a body has nothing to call back for; a module in a zip file has."""
    (tmp_path / "spaces").mkdir()
    library.write("spaces.inner", "value = 3")
    (tmp_path / "spaces" / "__init__.py").unlink()
    archive = tmp_path / "library.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("zipped.py", "value = 4")
    monkeypatch.syspath_prepend(str(archive))
    for name in ("spaces", "spaces.inner", "zipped"):
        finder.after(name, _mark)
    assert importlib.import_module("spaces.inner").marks == [3]
    assert not hasattr(sys.modules["spaces"], "marks")
    assert importlib.import_module("zipped").marks == [4]
    del sys.modules["zipped"]


def test_finders_that_ask_each_other_do_not_recurse(library: Library, finder: Finder) -> None:
    """Two import hooks that delegate to all other finders would call each other forever."""
    library.write("lib", "value = 1")

    class Delegating:
        def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> object:
            if name != "lib":
                return None
            others = (other for other in sys.meta_path if other is not self)
            return next((spec for other in others if (spec := other.find_spec(name, path, None))), None)

    finder.after("lib", _mark)
    second = Finder()
    second.after("lib", lambda module: setattr(module, "seen", True))
    delegating = Delegating()
    second.install()
    sys.meta_path.insert(0, delegating)  # type: ignore[arg-type]
    try:
        lib = importlib.import_module("lib")
    finally:
        sys.meta_path.remove(delegating)  # type: ignore[arg-type]
        second.remove()
    assert lib.marks == [1] and lib.seen


def test_imports_in_threads_call_back_once_before_anyone_sees_the_module(library: Library, finder: Finder) -> None:
    """Threads that import the same module wait for its callback."""
    library.package("lib", "")
    library.write("lib.slow", "import time\nvalue = 1\ntime.sleep(0.05)")
    finder.after("lib.slow", _mark)
    seen: list[list[int]] = []
    threads = [
        threading.Thread(target=lambda: seen.append(importlib.import_module("lib.slow").marks)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert seen == [[1]] * 4


def test_running_and_imported_tell_a_body_that_has_begun_from_one_that_has_ended(library: Library) -> None:
    """Patching waits for the end of a body that imports others."""
    library.write(
        "lib", "from patcher.engine import imports\nduring = imports.is_running('lib'), imports.imported('lib') is None"
    )
    lib = importlib.import_module("lib")
    assert lib.during == (True, True)
    assert not imports.is_running("lib") and imports.imported("lib") is lib and imports.imported("nosuch") is None


def test_exists_finds_submodules_without_importing_them(library: Library) -> None:
    """A module that upstream has renamed is told from one that has not been imported yet."""
    library.package("lib", "")
    library.write("lib.there", "raise AssertionError('imported')")
    assert imports.exists("lib.gone"), "not judged before the package is imported"
    importlib.import_module("lib")
    assert imports.exists("lib.there") and not imports.exists("lib.gone")
    assert not imports.exists("lib.gone.deeper"), "its package is gone"


# -- shims ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def shim(library: Library, monkeypatch: pytest.MonkeyPatch) -> Shim:
    """A shim for a library named fakelib, whose distribution is Fake_Lib."""
    shims = library.folder / "shims"
    (shims / "fakelib").mkdir(parents=True)
    (shims / "fakelib" / "__init__.py").write_text("origin = 'shim'")
    (shims / "fakelib" / "part.py").write_text("origin = 'part of the shim'")
    monkeypatch.setattr(imports, "SHIMS", shims)
    text = {"reviewed": "==1.0", "needed_for": "the test", "why": "w", "upstream": UPSTREAM, "until": "u"}
    return Shim(module="fakelib", distribution="Fake_Lib", version="1.0+patcher", **text)  # type: ignore[arg-type]


def test_a_shim_answers_import_find_spec_and_metadata_alike(shim: Shim, finder: Finder) -> None:
    """What is found has a version, under every spelling of its name; removal takes it out of sys.modules."""
    finder.shim(shim)
    assert importlib.util.find_spec("fakelib") is not None
    assert importlib.import_module("fakelib.part").origin == "part of the shim"
    for spelling in ("Fake_Lib", "fake-lib", "fake.lib"):
        assert importlib.metadata.version(spelling) == "1.0+patcher"
    assert importlib.metadata.packages_distributions()["fakelib"] == ["Fake_Lib"]
    assert importlib.metadata.metadata("fake-lib")["Name"] == "Fake_Lib"
    finder.remove()
    assert "fakelib" not in sys.modules and "fakelib.part" not in sys.modules
    assert importlib.util.find_spec("fakelib") is None
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("fake-lib")
    finder.install()


def test_a_search_limited_to_folders_does_not_find_a_shim(shim: Shim, finder: Finder, tmp_path: Path) -> None:
    """Package managers list the distributions of one folder; a shim lies in none."""
    finder.shim(shim)
    assert list(importlib.metadata.distributions(path=[str(tmp_path)])) == []


@pytest.mark.parametrize("how", ["installed", "imported", "editable", "absent", "folder", "blocked"])
def test_a_real_install_is_told_from_none(
    library: Library, finder: Finder, shim: Shim, how: str, monkeypatch: pytest.MonkeyPatch, first_finder: FirstFinder
) -> None:
    """Installed, imported or provided by an editable install's own finder is real; a folder without code is not."""
    finder.shim(shim)
    if how == "installed":
        library.package("fakelib", "")
    elif how == "imported":
        monkeypatch.setitem(sys.modules, "fakelib", ModuleType("fakelib"))
    elif how == "folder":
        (library.folder / "fakelib").mkdir()
    elif how == "editable":
        library.write("elsewhere.source", "")
        source = library.folder / "elsewhere" / "source.py"
        first_finder(lambda name: importlib.util.spec_from_file_location(name, source))
    elif how == "blocked":
        library.package("fakelib", "")
        first_finder(_raise)
    assert (imports.real_install("fakelib") is not None) == (how in ("installed", "imported", "editable"))


@pytest.fixture
def first_finder() -> Iterator[FirstFinder]:
    """Puts a finder that answers for fakelib in front of all others."""
    added: list[object] = []

    def add(answer: Callable[[str], object]) -> None:
        class First:
            def find_spec(self, name: str, path: object = None, target: object = None) -> object:
                return answer(name) if name == "fakelib" else None

        added.append(First())
        sys.meta_path.insert(0, added[0])  # type: ignore[arg-type]

    yield add
    for finder in added:
        sys.meta_path.remove(finder)  # type: ignore[arg-type]


def _raise(name: str) -> None:
    raise ModuleNotFoundError(name)
