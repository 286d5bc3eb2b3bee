"""The only code that touches sys.modules, sys.meta_path and the metadata of distributions.

One finder runs callbacks as soon as the body of a watched module has ended, runs substituted modules under their
own conditions, and answers for shims where no usable package is installed.
"""

from __future__ import annotations

import gc
import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import sys
import threading
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.metadata import Distribution, DistributionFinder
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from patcher.engine.model import Shim

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

AfterBody = Callable[[ModuleType], None]
AroundBody = Callable[[], AbstractContextManager[None]]

_PACKAGE = Path(__file__).resolve().parents[1]

SHIMS = next(folder for folder in (_PACKAGE / "shims", _PACKAGE.parent / "shims") if folder.is_dir())
"""The folder that holds one package per shim: within the package where it is installed, beside it in a clone."""


class Finder(importlib.abc.MetaPathFinder):
    """Sees every import of the watched modules; stands first on ``sys.meta_path``."""

    def __init__(self) -> None:
        self._after: dict[str, list[AfterBody]] = {}
        self._around: dict[str, AroundBody] = {}
        self._shims: dict[str, Shim] = {}
        self._once: set[str] = set()
        self._failed: dict[str, BaseException] = {}
        self._searching = threading.local()

    def after(self, module: str, callback: AfterBody) -> None:
        """Calls ``callback(module)`` when the body of ``module`` has run. What it raises fails the import."""
        self._after.setdefault(module, []).append(callback)

    def once(self, module: str) -> None:
        """Says that the body of ``module`` cannot run twice in a process.

        Where its callback has raised, later imports raise the same: libraries try imports and swallow the first error.
        """
        self._once.add(module)

    def around(self, module: str, conditions: AroundBody) -> None:
        """Runs the body of ``module`` within the context manager that ``conditions()`` gives."""
        self._around[module] = conditions

    def shim(self, shim: Shim) -> None:
        """Answers imports and metadata of ``shim.module`` from the shims folder."""
        self._shims[shim.module] = shim

    def install(self) -> None:
        """Puts the finder first on ``sys.meta_path``."""
        sys.meta_path.insert(0, self)

    def remove(self) -> None:
        """Takes the finder off ``sys.meta_path``, and the imported shims out of ``sys.modules``."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        for name, module in list(sys.modules.items()):
            if self._is_from_shim(name, module):
                del sys.modules[name]

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The real spec with our loader around its own; None for what nobody watches.

        A namespace package has no body, and is left as it is. Other finders may ask all finders in turn, this one
        among them, while it asks them: then it answers None.
        """
        if fullname in self._shims:
            return _shim_spec(fullname)
        if fullname not in self._after and fullname not in self._around:
            return None
        busy: set[str] = vars(self._searching).setdefault("names", set())
        if fullname in busy:
            return None
        busy.add(fullname)
        try:
            spec = self._real_spec(fullname, path, target)
        finally:
            busy.discard(fullname)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            around = self._around.get(fullname, nullcontext)
            after = self._after.get(fullname, [])
            failed = self._failed if fullname in self._once else {}
            spec.loader = _Loader(spec.loader, around, after, failed)  # type: ignore[assignment]
        return spec

    def find_distributions(
        self,
        context: DistributionFinder.Context = DistributionFinder.Context(),  # noqa: B008
    ) -> Iterable[Distribution]:
        """Metadata of the shims, so that ``importlib.metadata.version`` and ``find_spec`` agree.

        A search that is limited to some folders finds none: the shims lie in none of them.
        """
        if "path" in vars(context):
            return
        for shim in self._shims.values():
            if context.name is None or _normal(context.name) == _normal(shim.distribution):
                yield ShimDistribution(shim)

    def _real_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
        for finder in list(sys.meta_path):
            if finder is not self and hasattr(finder, "find_spec"):
                spec = finder.find_spec(fullname, path, target)
                if spec is not None:
                    return spec
        return None

    def _is_from_shim(self, name: str, module: ModuleType) -> bool:
        root = name.partition(".")[0]
        file = getattr(module, "__file__", None)
        return root in self._shims and file is not None and SHIMS in Path(file).parents


class _Loader:
    """Runs a module's body through its own loader, then gives the module back to that loader.

    Whoever looks at a spec before the body runs (``runpy``, ``pkgutil``) gets the answers of the module's own loader.
    """

    def __init__(
        self, inner: Any, around: AroundBody, after: list[AfterBody], failed: dict[str, BaseException]
    ) -> None:
        self._inner, self._around, self._after, self._failed = inner, around, after, failed

    def __getattr__(self, name: str) -> Any:
        if name == "_inner":  # a copy under construction
            raise AttributeError(name)
        return getattr(self._inner, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._inner.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        if name in self._failed:
            raise self._failed[name]
        registered = sys.modules.get(name) is module
        module.__loader__ = self._inner
        if module.__spec__ is not None:
            module.__spec__.loader = self._inner
        with self._around():
            self._inner.exec_module(module)
        found = sys.modules.get(name, module) if registered else module  # a body may put another object in its place
        try:
            for callback in self._after:
                callback(found)
        except BaseException as error:
            self._failed[name] = error
            raise


@contextmanager
def without_collecting() -> Iterator[None]:
    """Pauses the cyclic garbage collector; one that was off stays off.

    A library's body makes a million objects that stay, and next to no garbage: looking through them again and again
    takes a fifth of the time of ``import unsloth``, and finds 12 MiB.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class ShimDistribution(Distribution):
    """What ``importlib.metadata`` says about a shim: its name and version, and that it is one."""

    def __init__(self, shim: Shim) -> None:
        self._shim = shim

    def read_text(self, filename: str) -> str | None:
        """The METADATA, INSTALLER and top_level.txt of the shim; None for every other file."""
        return {
            "METADATA": (
                f"Metadata-Version: 2.1\nName: {self._shim.distribution}\nVersion: {self._shim.version}\n"
                f"Summary: stands in for {self._shim.distribution} (patch-for-mac)\n"
            ),
            "INSTALLER": "patch-for-mac\n",
            "top_level.txt": f"{self._shim.module}\n",
        }.get(filename)

    def locate_file(self, path: object) -> Path:
        """A file of the shim in the shims folder."""
        return SHIMS / str(path)


def real_install(module: str) -> str | None:
    """Where a real top-level package is installed, without importing it; None if there is none.

    A package that is already imported counts as real, whoever put it there.
    """
    loaded = sys.modules.get(module)
    if loaded is not None:
        return getattr(loaded, "__file__", None) or "already imported"
    spec = _find(module, None)
    return None if spec is None else spec.origin


def exists(module: str) -> bool:
    """Whether a submodule can be found, without importing anything; True while no package above it is imported."""
    package = module.rpartition(".")[0]
    if not package or module in sys.modules:
        return True
    if package not in sys.modules:
        return exists(package)
    path = getattr(sys.modules[package], "__path__", None)
    return path is not None and _find(module, path) is not None


def names_of(wanted: Container[int]) -> Iterator[tuple[str, ModuleType, str, Any]]:
    """Where an imported module has one of these values, given by identity: (the module's name, module, name, value)."""
    for place, module in list(sys.modules.items()):
        if isinstance(module, ModuleType):
            for name, value in [item for item in list(vars(module).items()) if id(item[1]) in wanted]:
                yield place, module, name, value


def loaded(module: str) -> ModuleType:
    """The module as it is in ``sys.modules``, its body ended or not. Raises KeyError when it was never imported."""
    return sys.modules[module]


def become_main(module: ModuleType) -> None:
    """Makes ``module`` the ``__main__`` of this process, for a program that is run in it."""
    sys.modules["__main__"] = module


def is_imported(module: str) -> bool:
    """Whether the module is in ``sys.modules``."""
    return module in sys.modules


def imported(module: str) -> ModuleType | None:
    """The module if it has been imported and its body has ended, else None."""
    found = sys.modules.get(module)
    return None if found is None or is_running(module) else found


def is_running(module: str) -> bool:
    """Whether the module's body has begun and not ended."""
    spec = getattr(sys.modules.get(module), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))


def _find(module: str, path: Sequence[str] | None) -> ModuleSpec | None:
    """The spec by every finder but ours; a finder that blocks the module by raising ImportError means None."""
    for finder in list(sys.meta_path):
        if not isinstance(finder, Finder) and hasattr(finder, "find_spec"):
            try:
                spec = finder.find_spec(module, path)
            except ImportError:
                return None
            if spec is not None:
                return spec
    return None


def _shim_spec(module: str) -> ModuleSpec | None:
    folder = SHIMS / module
    return importlib.util.spec_from_file_location(
        module, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )


def _normal(name: str) -> str:
    return name.lower().replace("-", "_").replace(".", "_")
