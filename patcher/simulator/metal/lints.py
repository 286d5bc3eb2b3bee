"""What Apple's compiler refuses and a C++ compiler does not: found in the tokens, without knowing types.

The rules are those of the Metal Shading Language Specification, section 1.4.3 (restrictions) and chapter 4 (address
spaces). A rule that cannot be decided on tokens stays silent.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from patcher.simulator.metal.tokens import Tokens

UNSUPPORTED = {
    "double": "'double' is not supported in Metal",
    "new": "Metal has no operator new",
    "delete": "Metal has no operator delete",
    "throw": "Metal has no exceptions",
    "try": "Metal has no exceptions",
    "goto": "Metal has no goto statement",
    "virtual": "Metal has no virtual functions",
    "dynamic_cast": "Metal has no dynamic_cast",
    "typeid": "Metal has no run-time type identification",
    "thread_local": "Metal has no thread_local storage",
}
SPACES = ("device", "constant", "threadgroup", "thread")
QUALIFIERS = ("const", "volatile", "static", "unsigned", "signed", *SPACES)
PLAIN_TYPE = re.compile(r"(bool|u?char|u?short|u?int|u?long|half|bfloat|float|size_t|u?int(8|16|32|64)_t)[234]?")
NOT_FUNCTIONS = ("if", "for", "while", "switch", "else", "do", "catch", "return")


@dataclass(frozen=True)
class Finding:
    """A line that Apple's compiler would not take, and why."""

    line: int
    message: str


@dataclass(frozen=True)
class _Function:
    name: str
    parameters: int
    begin: int
    end: int
    template: bool


def find(tokens: Tokens) -> list[Finding]:
    """Every finding, in the order of the source."""
    functions = _functions(tokens)
    found = [*_unsupported(tokens), *_without_address_space(tokens), *_recursion(tokens, functions)]
    for function in functions:
        found += _mixed_address_spaces(tokens, function)
    return [Finding(tokens.line(at), message) for at, message in sorted(found)]


def _unsupported(tokens: Tokens) -> list[tuple[int, str]]:
    found = []
    for at in range(len(tokens)):
        message = UNSUPPORTED.get(tokens[at])
        if message is not None and not (tokens[at] == "delete" and tokens[at - 1] == "="):
            found.append((at, message))
    return found


def _without_address_space(tokens: Tokens) -> list[tuple[int, str]]:
    """Pointers to numbers that are declared without saying into which memory."""
    found = []
    for at in range(len(tokens)):
        declares = tokens[at + 1].isidentifier() and tokens[at + 2] in ("=", ";", ",", ")", "[")
        if tokens[at] != "*" or not declares or not PLAIN_TYPE.fullmatch(tokens[at - 1]):
            continue
        begin = at - 1
        while tokens[begin - 1] in QUALIFIERS:
            begin -= 1
        if tokens[begin - 1] in ("(", ",", ";", "{", "}") and _space(tokens.between(begin, at)) is None:
            found.append((at, f"pointer type must have explicit address space qualifier: '{tokens[at + 1]}'"))
    return found


def _functions(tokens: Tokens) -> list[_Function]:
    """The functions with a body; those of structures too."""
    functions = []
    at = 0
    while at < len(tokens):
        if tokens[at] == "{":
            begin = tokens.statement_begin(at)
            head = tokens.between(begin, at)
            if "(" in head and head[0] not in NOT_FUNCTIONS and "=" not in head:
                opening = _parameter_list(tokens, begin, at)
                end = tokens.closing(at)
                functions.append(_Function(tokens[opening - 1], opening, at, end, "template" in head))
                at = end
        at += 1
    return functions


def _parameter_list(tokens: Tokens, begin: int, end: int) -> int:
    """Where the bracket of the parameters opens: the first outside attributes."""
    at = begin
    while at < end and tokens[at] != "(":
        at = tokens.closing(at) + 1 if tokens[at] == "[[" else at + 1
    return at


def _recursion(tokens: Tokens, functions: list[_Function]) -> list[tuple[int, str]]:
    """Calls that lead back to the caller. Names that several functions have are left out: overloads may end it."""
    counts = Counter(function.name for function in functions)
    library = _library_names()
    alone = {f.name: f for f in functions if counts[f.name] == 1 and not f.template and f.name not in library}
    calls = {
        name: {
            tokens[at]: at
            for at in range(f.begin, f.end)
            if tokens[at] in alone and tokens[at + 1] == "(" and tokens[at - 1] not in (".", "->", "::")
        }
        for name, f in alone.items()
    }
    return [
        (at, f"recursive function calls are not supported in Metal: '{name}' comes back to itself")
        for name in alone
        for callee, at in calls[name].items()
        if name in _reachable(callee, calls)
    ]


@functools.lru_cache(maxsize=1)
def _library_names() -> frozenset[str]:
    """Every name in the standard library's headers, and some more: an overload may call one of the same name."""
    headers = (Path(__file__).parent / "include").glob("*.h")
    return frozenset(name for header in headers for name in re.findall(r"[A-Za-z_]\w{2,}", header.read_text()))


def _reachable(start: str, calls: dict[str, dict[str, int]]) -> set[str]:
    reached, waiting = set(), [start]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += calls[name]
    return reached


def _mixed_address_spaces(tokens: Tokens, function: _Function) -> list[tuple[int, str]]:
    """Pointers that are initialised with a pointer into another address space."""
    spaces = _declared(tokens, function.parameters + 1, function.begin)
    found = []
    for at in range(function.begin, function.end):
        if tokens[at] != "=" or tokens[at - 2] != "*" or not tokens[at - 1].isidentifier():
            continue
        own = _space(tokens.between(tokens.statement_begin(at), at)) or "thread"
        source = tokens[at + 1]
        if spaces.get(source, own) != own and tokens[at + 2] in (";", "+", "-"):
            message = f"cannot initialize a pointer into '{own}' memory with one into '{spaces[source]}' memory"
            found.append((at, message))
        spaces[tokens[at - 1]] = own
    return found


def _declared(tokens: Tokens, begin: int, end: int) -> dict[str, str]:
    """The address spaces of the pointers among parameters."""
    spaces: dict[str, str] = {}
    space: str | None = None
    for at in range(begin, end):
        if tokens[at] in SPACES:
            space = tokens[at]
        elif tokens[at] == ",":
            space = None
        elif tokens[at] == "*" and tokens[at + 1].isidentifier() and space is not None:
            spaces[tokens[at + 1]] = space
    return spaces


def _space(words: list[str]) -> str | None:
    return next((word for word in words if word in SPACES), None)
