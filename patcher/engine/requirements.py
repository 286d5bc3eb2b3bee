"""What an installed library asks of others and does not have: it was made for other releases of them."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from patcher.engine.targets import installed_version


def unmet(distribution: str, others: Iterable[str]) -> tuple[str, ...]:
    """Which of ``others`` are installed in a version that the metadata of ``distribution`` excludes.

    Each as ``"transformers<=5.5.0 (5.17.0 is installed)"``. Extras do not count, nor what is not installed at all.
    """
    wanted: set[str] = {canonicalize_name(name) for name in others}
    try:
        asked = importlib.metadata.requires(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return ()
    found = (_unmet(text, wanted) for text in asked)
    return tuple(dict.fromkeys(one for one in found if one is not None))


def _unmet(text: str, wanted: set[str]) -> str | None:
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        return None
    applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    if canonicalize_name(requirement.name) not in wanted or not applies:
        return None
    version = installed_version(requirement.name)
    if version is None:
        return None
    broken = sorted(str(one) for one in requirement.specifier if not one.contains(version, prereleases=True))
    return f"{requirement.name}{','.join(broken)} ({version} is installed)" if broken else None
