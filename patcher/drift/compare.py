"""The changes of the catalogue beside a release: which fit, and what the others find there."""

from __future__ import annotations

import ast
import copy
import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from packaging.utils import canonicalize_name

from patcher.changes import changes_of, files
from patcher.drift.archives import Release
from patcher.drift.names import Texts, Thing
from patcher.drift.scope import Function
from patcher.engine.choice import one_for_each_target
from patcher.engine.model import Patch, Substitute
from patcher.engine.signatures import parse_signature
from patcher.engine.targets import before_it_came, is_expected, outdated, predates


class Status(enum.Enum):
    """How a change stands to a release; the words that the report prints."""

    FITS = "fits"
    SUPPLIED = "upstream supplies it"
    NEEDLESS = "not needed"
    SIGNATURE = "another signature"
    NAME = "no such name"
    MODULE = "no such module"
    CONSTANT = "no such constant"
    UNCLEAR = "cannot be told"


TODO = {
    Status.SUPPLIED: "the change can go with the last release that lacks it",
    Status.SIGNATURE: "read what the new parameters mean, then change `expects` and the replacement",
    Status.NAME: "look for what has taken its place, then change the target, or delete the change",
    Status.MODULE: "look for what has taken its place, then change the target, or delete the change",
    Status.CONSTANT: "look for what has taken its place, then change the name, or delete the change",
    Status.UNCLEAR: "read it: what it names is not in the text of the release",
}
"""What a maintainer has to do, by how the change stands."""

Targeted = Patch | Substitute


@dataclass(frozen=True)
class Answer:
    """What became of one change.

    Attributes:
        change: the change.
        status: see `Status`.
        found: other parameters than the expected ones, the names that are missing, or why it cannot be told; of a
            change that fits, the parameters that the target has under other conditions.
        elsewhere: where the release has the name, as ``"module:name(parameters)"``, where it is not at the target.
    """

    change: Targeted
    status: Status
    found: str = ""
    elsewhere: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether nothing is missing: the change can be put in place, or is no longer needed."""
        return self.status in (Status.FITS, Status.SUPPLIED, Status.NEEDLESS)

    @property
    def file(self) -> str:
        """The file of the catalogue that holds the change."""
        return _files()[self.change.key]


@cache
def _files() -> dict[str, str]:
    return {c.key: f"patcher/changes/{file.replace('.', '/')}.py" for file in files() for c in changes_of(file)}


def targeted(changes: Sequence[object], releases: Sequence[Release]) -> tuple[Targeted, ...]:
    """The changes that are for these releases: of several for one target that which was reviewed for the release."""
    versions = {release.name.replace("-", "_"): str(release.version) for release in releases}
    ours = [c for c in changes if isinstance(c, (Patch, Substitute)) and c.distribution in versions]
    chosen = one_for_each_target(ours, version_of=versions.get)
    return tuple(change for change in chosen if isinstance(change, (Patch, Substitute)))


def compare(change: Targeted, texts: Texts) -> Answer:
    """How a change stands to releases whose texts these are."""
    version = texts.versions.get(canonicalize_name(change.distribution))
    too_new = outdated(change, version)
    if too_new is not None:
        return Answer(change, Status.NEEDLESS, too_new)
    answer = _compared(change, texts)
    if answer.status in (Status.MODULE, Status.NAME) and predates(change, version):
        return Answer(change, Status.NEEDLESS, before_it_came(change, version))
    return answer


def _compared(change: Targeted, texts: Texts) -> Answer:
    try:
        if change.module not in texts.modules:
            elsewhere = _elsewhere(change, texts) if isinstance(change, Patch) else ()
            return Answer(change, Status.MODULE, elsewhere=elsewhere)
        return _of_a_patch(change, texts) if isinstance(change, Patch) else _of_a_substitute(change, texts)
    except SyntaxError as error:
        return Answer(change, Status.UNCLEAR, str(error))


def _of_a_substitute(change: Substitute, texts: Texts) -> Answer:
    names = [name for name in (*change.constants, *change.references) if name not in change.may_lack]
    missing = [name for name in names if not texts.find(change.module, name)]
    return Answer(change, Status.CONSTANT, ", ".join(missing)) if missing else Answer(change, Status.FITS)


def _of_a_patch(patch: Patch, texts: Texts) -> Answer:
    if patch.adds:
        return _of_an_addition(patch, texts)
    things = texts.find(patch.module, patch.qualname)
    if not things:
        return Answer(patch, Status.NAME, elsewhere=_elsewhere(patch, texts))
    if patch.expects is None:
        return Answer(patch, Status.FITS)
    return _of_parameters(patch, things, texts)


def _of_an_addition(patch: Patch, texts: Texts) -> Answer:
    holder, _, _ = patch.qualname.rpartition(".")
    if holder and not texts.find(patch.module, holder):
        return Answer(patch, Status.NAME)
    supplied = texts.is_bound(patch.module, patch.qualname)
    return Answer(patch, Status.SUPPLIED if supplied else Status.FITS)


def _of_parameters(patch: Patch, things: Sequence[Thing], texts: Texts) -> Answer:
    """Of definitions under conditions one has to fit: which of them is taken on a Mac no text tells."""
    lists = _lists(things, texts)
    others = [text for text in lists if not is_expected(patch, parse_signature(text))]
    if lists:
        fits = len(others) < len(lists)
        return Answer(patch, Status.FITS if fits else Status.SIGNATURE, " or ".join(others))
    return Answer(patch, Status.UNCLEAR, ", ".join(dict.fromkeys(thing.outside or "no function" for thing in things)))


def parameter_lists(patch: Patch, texts: Texts) -> list[str]:
    """The parameters of a target, one list for each of its definitions; none where no text has it."""
    return _lists(texts.find(patch.module, patch.qualname), texts)


def _lists(things: Sequence[Thing], texts: Texts) -> list[str]:
    return list(dict.fromkeys(text for thing in things if (text := _parameters(thing, texts)) is not None))


def _parameters(thing: Thing, texts: Texts) -> str | None:
    """The parameters of a function, or those with which a class is called; None of what cannot be read."""
    if isinstance(thing.node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        wrapped = _wrapped(thing.node)
        of = [] if wrapped is None else texts.find(thing.module, wrapped)
        return next((text for inner in of if (text := _parameters(inner, texts)) is not None), parameters(thing.node))
    if isinstance(thing.node, ast.ClassDef):
        made = texts.find(thing.module, f"{thing.node.name}.__init__")
        nodes = [t.node for t in made if isinstance(t.node, ast.FunctionDef)]
        return parameters(nodes[0], bound=True) if nodes else None
    return None


def _wrapped(function: Function) -> str | None:
    """The name in ``@functools.wraps(name)``: `inspect.signature` answers for that function."""
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) in ("functools.wraps", "wraps"):
            return ast.unparse(decorator.args[0])
    return None


def parameters(function: Function, *, bound: bool = False) -> str:
    """The parameter list without annotations, as `Patch.expects` has it; ``bound`` leaves the first one out."""
    arguments = copy.deepcopy(function.args)
    stars = [argument for argument in (arguments.vararg, arguments.kwarg) if argument is not None]
    positional = arguments.posonlyargs or arguments.args
    if bound and positional:
        del positional[0]
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *stars):
        argument.annotation = None
    return f"({ast.unparse(arguments)})"


def _elsewhere(patch: Patch, texts: Texts) -> tuple[str, ...]:
    return tuple(_places(patch, texts))


def _places(patch: Patch, texts: Texts) -> Iterator[str]:
    for module, node in texts.definitions(patch.qualname):
        if module != patch.module:
            yield f"{module}:{patch.qualname}{parameters(node)}"
