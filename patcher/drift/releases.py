"""Which releases are meant: files, a version, or every one since a version; each with what it is released with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from patcher.changes import catalogue
from patcher.drift import archives, fetch
from patcher.drift.archives import Release
from patcher.engine.model import Patch, Substitute
from patcher.engine.targets import is_reviewed
from patcher.errors import InvalidSwitch, ReleaseUnreadable, compose

PARTNERS = {"unsloth": "unsloth-zoo"}
"""Libraries that are released together: the first one's metadata name the version of the second."""

_COMPILED = "torch"
"""Most of its names are made by compiled code, which no text shows."""


def libraries() -> tuple[str, ...]:
    """The libraries whose changes can be compared with a text."""
    return tuple(sorted({c.distribution for c in _with_a_target() if c.distribution != _COMPILED}))


def of_files(library: str, files: Sequence[Path]) -> tuple[Release, ...]:
    """The releases in files, the library first; a partner that is not among them is fetched.

    Raises:
        ReleaseUnreadable: a file cannot be read, or there is none of the library.
    """
    found = {(release := archives.read(file, _roots())).name: release for file in files}
    name = canonicalize_name(library)
    if name not in found:
        raise ReleaseUnreadable(
            compose(
                f"none of the files is a release of {library}",
                expected=name,
                found=", ".join(found),
                left="nothing was read",
                run=f"--library {next(iter(found))}, or name the wheel of {library}",
            )
        )
    return _with_partner(found[name], found.get(PARTNERS.get(name, "")))


def of_version(library: str, version: Version | None) -> tuple[Release, ...]:
    """A release by its version, or the newest one, with its partner.

    Raises:
        ReleaseUnreadable: it cannot be fetched.
    """
    name = canonicalize_name(library)
    return _with_partner(fetch.release(name, version or fetch.versions(name)[0], _roots()))


def since(library: str, version: Version) -> tuple[Version, ...]:
    """The versions from this one on, the oldest first. Raises ReleaseUnreadable where the index has none."""
    found = [known for known in fetch.versions(canonicalize_name(library)) if known >= version]
    if not found:
        newest = f"newest: {fetch.versions(canonicalize_name(library))[0]}"
        raise ReleaseUnreadable(
            compose(
                "there is no release since then", target=library, expected=f">={version}", found=f"newest: {newest}"
            )
        )
    return tuple(reversed(found))


def reviewed(library: str) -> tuple[Release, ...]:
    """The release that the changes were written for, as it is installed, else fetched; with its partner."""
    name = canonicalize_name(library)
    names = [name, *([PARTNERS[name]] if name in PARTNERS else [])]
    return tuple(_reviewed(one) for one in names)


def parse(text: str) -> Version:
    """A version from the command line. Raises InvalidSwitch where it is none."""
    try:
        return Version(text)
    except InvalidVersion:
        raise InvalidSwitch(
            compose(
                "this is no version, and there is no such file",
                found=text,
                expected="a version such as 2026.10.9, or wheels or sdists",
                left="nothing was read",
            )
        ) from None


def _reviewed(name: str) -> Release:
    change = next(c for c in _with_a_target() if canonicalize_name(c.distribution) == name)
    here = archives.installed(change.distribution, _roots())
    if here is not None and is_reviewed(change, str(here.version)):
        return here
    (specifier,) = SpecifierSet(change.reviewed)
    return fetch.release(name, Version(specifier.version), _roots())


def _with_partner(release: Release, partner: Release | None = None) -> tuple[Release, ...]:
    name = PARTNERS.get(release.name)
    if name is None:
        return (release,)
    return (release, partner or fetch.release(name, _wanted(release, name), _roots()))


def _wanted(release: Release, partner: str) -> Version:
    """The version of the partner that the metadata name; of a range the newest one up to the version that it names."""
    for text in release.requires:
        requirement = _requirement(text)
        if requirement is not None and canonicalize_name(requirement.name) == partner and requirement.specifier:
            return _newest(partner, requirement.specifier)
    return fetch.versions(partner)[0]


def _requirement(text: str) -> Requirement | None:
    try:
        return Requirement(text)
    except InvalidRequirement:
        return None


def _newest(name: str, specifier: SpecifierSet) -> Version:
    named = max(Version(one.version.removesuffix(".*")) for one in specifier)
    there = (version for version in fetch.versions(name) if version <= named and specifier.contains(version))
    return next(there, named)


def _with_a_target() -> list[Patch | Substitute]:
    return [change for change in catalogue() if isinstance(change, (Patch, Substitute))]


def _roots() -> frozenset[str]:
    return frozenset(change.module.partition(".")[0] for change in _with_a_target())
