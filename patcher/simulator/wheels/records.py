"""Keeps what wheels hold, a text file for each release: the oldest whole, each later one as what differs from the last.

A file has a head (``torch: 2.14.1``) and sections (``[operators]``) of sorted lines. In a file with ``after: 2.13``
each line of a section begins with ``+`` or ``-``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from patcher.errors import InvalidSwitch, compose
from patcher.macs.mac import release_of

FOLDER = Path(__file__).parent / "data"
HEAD = ("torch", "commit", "wheel", "sha256")


@dataclass(frozen=True)
class Record:
    """What a wheel holds.

    Attributes:
        torch: full version, such as ``"2.14.1"``.
        commit: of PyTorch's repository.
        wheel: the file's name.
        sha256: of the wheel.
        sections: lines by section: ``operators``, ``registered``, ``refusals``, ``kernels``, ``types``, ``allocator``,
            ``python``, ``targets``, ``headers``; `contents` says what each is.
    """

    torch: str
    commit: str
    wheel: str
    sha256: str
    sections: dict[str, set[str]] = field(default_factory=dict)

    @property
    def release(self) -> str:
        """Major and minor number: ``"2.14"``."""
        return release_of(self.torch)

    def functions(self) -> set[str]:
        """Every operator of ATen that this torch has: ``add.Tensor``."""
        return {line.split(" ")[0] for line in self.sections["operators"]}

    def with_kernel(self, backend: str = "MPS") -> set[str]:
        """The operators with a kernel for an mps backend: what torch's list says, less what the binary lacks."""
        lines = (line.split(" ") for line in self.sections["operators"])
        promised = {name for name, *backends in lines if backend in backends}
        return promised - self._registered("lacking", backend)

    def by_hand(self, backend: str = "MPS") -> set[str]:
        """The operators that the binary registers for a backend though torch's list names no kernel."""
        return self._registered("added", backend)

    def types(self) -> dict[str, list[str]]:
        """What each kernel of TensorIterator reads, by Metal's names of types."""
        families = (line.split(" ") for line in self.sections["types"])
        return {family: types for family, *types in families}

    def _registered(self, how: str, backend: str) -> set[str]:
        lines = (line.split(" ") for line in self.sections["registered"])
        return {name for found, key, name in lines if (found, key) == (how, backend)}


@cache
def releases() -> tuple[str, ...]:
    """The releases that are known, oldest first."""
    known = (path.stem.removeprefix("torch_").replace("_", ".") for path in FOLDER.glob("torch_*.txt"))
    return tuple(sorted(known, key=_order))


@cache
def record(release: str) -> Record:
    """What is known of a release, such as ``"2.14"``.

    Raises:
        InvalidSwitch: nothing is.
    """
    if release not in releases():
        raise InvalidSwitch(
            compose(
                "nothing is known of this torch for macOS",
                expected=f"torch {', '.join(releases())}",
                found=f"torch {release}",
                run=f"use torch {releases()[-1]}; a checkout learns a release with make wheel RELEASE=...",
            )
        )
    return parse(path_of(release).read_text(encoding="utf-8"))


def path_of(release: str) -> Path:
    """The file of a release."""
    return FOLDER / f"torch_{release.replace('.', '_')}.txt"


def before(release: str) -> Record | None:
    """The last known release that is older, or None."""
    older = [each for each in releases() if _order(each) < _order(release)]
    return record(older[-1]) if older else None


def parse(text: str) -> Record:
    """A file's content as a record; the file that it comes after is read as well."""
    head, _, rest = text.partition("\n\n")
    fields = dict(line.split(": ", 1) for line in head.splitlines())
    sections: dict[str, set[str]] = {}
    for block in rest.strip("\n").split("\n\n"):
        title, *lines = block.split("\n")
        sections[title.strip("[]")] = set(lines)
    base = fields.pop("after", None)
    if base is not None:
        sections = {
            title: lines - _marked("-", sections.get(title, set())) | _marked("+", sections.get(title, set()))
            for title, lines in record(base).sections.items()
        }
    return Record(**fields, sections=sections)


def written(wheel: Record, base: Record | None) -> str:
    """A record as its file's content, after another one or whole."""
    lines = [f"{name}: {getattr(wheel, name)}" for name in HEAD]
    if base is not None:
        lines.append(f"after: {base.release}")
    for title, content in (wheel.sections if base is None else difference(wheel, base)).items():
        if content:
            lines += ["", f"[{title}]", *sorted(content, key=_by_name)]
    return "\n".join(lines) + "\n"


def difference(wheel: Record, base: Record) -> dict[str, set[str]]:
    """By section, ``- `` and the lines that only ``base`` has, ``+ `` and those that only ``wheel`` has."""
    found = {}
    for title, lines in wheel.sections.items():
        old = base.sections.get(title, set())
        found[title] = {f"- {line}" for line in old - lines} | {f"+ {line}" for line in lines - old}
    return found


def _marked(sign: str, lines: set[str]) -> set[str]:
    return {line[2:] for line in lines if line.startswith(f"{sign} ")}


def _by_name(line: str) -> tuple[str, str]:
    """What went and what came for one name stand together."""
    return (line[2:], line[:1]) if line[:2] in ("+ ", "- ") else (line, "")


def _order(release: str) -> tuple[int, ...]:
    return tuple(int(number) for number in release.split("."))
