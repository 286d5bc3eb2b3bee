"""Which installed libraries do not go together: by what one asks of others, and by what is known to go wrong."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from patcher.engine.targets import installed_version


@dataclass(frozen=True)
class Fault:
    """What libraries do wrong together, on every device.

    Attributes:
        versions: of each of them, those that do.
        what: in words.
    """

    versions: Mapping[str, str]
    what: str

    def is_in(self, installed: Mapping[str, str | None]) -> bool:
        """Whether these versions have it."""
        found = ((installed.get(name), SpecifierSet(spec)) for name, spec in self.versions.items())
        return all(version is not None and spec.contains(version, prereleases=True) for version, spec in found)


GEMMA_2 = Fault(
    {"unsloth": "<2026.9.12", "transformers": ">=5.4"},
    "Gemma 2 trains wrong: its embeddings are scaled by Unsloth, and by transformers since 5.4",
)
DECODING = Fault(
    {"unsloth": "==2026.3.18", "transformers": ">=5.3"},
    "generation fails, since transformers passes the positions of the whole row, and Unsloth takes those of one token; "
    "transformers 4.57.6, which it allows too, goes",
)
FAULTS = (GEMMA_2, DECODING)
"""Found by `make versions`, in releases that allow these versions; see docs/versions.md."""


def faults() -> tuple[Fault, ...]:
    """Those that the installed libraries have."""
    return tuple(one for one in FAULTS if one.is_in({name: installed_version(name) for name in one.versions}))


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
