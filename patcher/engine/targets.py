"""What a change names: its target and its replacement are found here, and compared with the installed library."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any

from patcher.engine import imports
from patcher.engine.attributes import MISSING, lookup
from patcher.engine.model import AnyChange, EnvDefault, Kernel, Patch, Shim, Substitute
from patcher.engine.signatures import parse_signature, same_shape, without
from patcher.errors import RefusedChange, compose


def load(reference: str) -> Any:
    """The object that ``"package.module:name"`` refers to; imports the module."""
    module, _, qualname = reference.partition(":")
    value: Any = importlib.import_module(module)
    for name in qualname.split("."):
        value = getattr(value, name)
    return value


def installed_version(distribution: str) -> str | None:
    """The installed version of a distribution, or None; a shim answers its own."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def is_reviewed(change: AnyChange, installed: str | None) -> bool:
    """Whether the installed version is one that somebody read. Shims and variables do not depend on one."""
    if isinstance(change, (Shim, EnvDefault)):
        return True
    return installed is not None and _contains(change.reviewed, installed)


def predates(change: AnyChange, version: str | None) -> bool:
    """Whether a release of this version is from before the target of the change."""
    if not isinstance(change, Patch) or change.since is None or version is None:
        return False
    return _contains(f"<{change.since}", version)


def outdated(change: AnyChange, version: str | None) -> str | None:
    """Why a release of this version does without the change; None where it needs it."""
    if change.before is None or version is None:
        return None
    needed = _contains(f"<{change.before}", version)
    return None if needed else f"{change.distribution} does without it since {change.before}"


@cache
def _contains(specifier: str, version: str) -> bool:
    from packaging.specifiers import SpecifierSet
    from packaging.version import InvalidVersion, Version

    try:
        return SpecifierSet(specifier, prereleases=True).contains(Version(version))
    except InvalidVersion:
        return False


def holders_of(values: dict[int, str]) -> Iterator[tuple[str, str]]:
    """Other modules that hold one of ``values`` under some name, as (target, ``module.name``).

    Args:
        values: id of the object to the target (``"package.module:name"``) that it belongs to.
    """
    for place, _, name, value in imports.names_of(values):
        target = values[id(value)]
        if place != target.partition(":")[0]:
            yield target, f"{place}.{name}"


def refusal_of(change: Patch | Substitute | Kernel, reference: str, error: Exception) -> RefusedChange:
    """What to raise where ``reference``, which ``change`` needs, cannot be imported."""
    return RefusedChange(
        compose(
            f"what {change.key} is to be replaced with cannot be imported",
            target=change.key,
            installed=f"{change.distribution} {installed_version(change.distribution)}",
            expected=reference,
            found=f"{type(error).__name__}: {error}",
            left="unchanged",
            run="python -m patcher report",
        )
    )


def load_for(change: Patch | Substitute | Kernel, reference: str) -> Any:
    """What ``reference`` refers to. Raises RefusedChange where it cannot be imported."""
    try:
        return load(reference)
    except Exception as error:
        raise refusal_of(change, reference, error) from error


def resolve(patch: Patch, module: ModuleType) -> tuple[Any, str]:
    """The object that holds the target's name, and that name."""
    *path, name = patch.qualname.split(".")
    holder: Any = module
    for step in path:
        holder = getattr(holder, step, MISSING)
        if holder is MISSING:
            raise RefusedChange(mismatch(patch, f"{step} in {patch.module}", "no such name"))
    return holder, name


def is_there(patch: Patch, module: ModuleType) -> bool:
    """Whether the module has the target's name, whatever stands for it."""
    try:
        holder, name = resolve(patch, module)
    except RefusedChange:
        return False
    return lookup(holder, name) is not MISSING


def before_it_came(change: AnyChange, version: str | None) -> str:
    """What the report says of a change whose target `predates` the installed release."""
    since = change.since if isinstance(change, Patch) else ""
    return f"nothing to change: {change.distribution} {version} is from before it came, in {since}"


def is_expected(patch: Patch, found: inspect.Signature) -> bool:
    """Whether these are the parameters that the patch expects, less some of those that they may lack."""
    lacking = set(patch.may_lack) - found.parameters.keys()
    return same_shape(found, without(parse_signature(str(patch.expects)), lacking))


def check_signature(patch: Patch, found: Any) -> None:
    """Raises RefusedChange where the parameters of ``found`` are not those that the patch expects."""
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        raise RefusedChange(mismatch(patch, str(patch.expects), f"{found!r}, which has no signature")) from None
    if not is_expected(patch, signature):
        raise RefusedChange(mismatch(patch, str(patch.expects), str(signature)))


def mismatch(change: Patch | Substitute | Kernel, expected: str, found: str) -> str:
    """The message of a refusal: what was expected of the target, and what is there."""
    named = change.qualname if isinstance(change, Patch) else change.key
    return compose(
        f"{named} does not have the shape that this change was written for",
        target=change.key,
        installed=f"{change.distribution} {installed_version(change.distribution)}",
        expected=f"{expected} ({change.distribution}{change.reviewed})",
        found=found,
        left="unchanged",
        run=f"pip install '{change.distribution}{change.reviewed}'",
    )
