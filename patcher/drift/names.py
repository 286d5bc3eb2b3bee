"""What ``package.module:Class.name`` stands for in the texts of releases: through imports, assignments and bases."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from patcher.drift.archives import Module, Release
from patcher.drift.scope import STAR, Function, Imported, Name, Names, Value, names_of


@dataclass(frozen=True)
class Thing:
    """What a name may stand for.

    Attributes:
        module: the module whose text defines it; of a module itself, that module.
        node: its definition; None for a module, and for what cannot be read.
        outside: what cannot be read: the expression, or the name in another library; "" where it can be.
    """

    module: str
    node: Function | ast.ClassDef | ast.Constant | None = None
    outside: str = ""


_Seen = frozenset[tuple[str, str]]


class Texts:
    """The modules of releases that belong together."""

    def __init__(self, releases: Iterable[Release]) -> None:
        releases = tuple(releases)
        self.versions = {release.name: str(release.version) for release in releases}
        """By the canonical name of the library."""
        self.modules = {name: module for release in releases for name, module in release.modules.items()}
        self._roots = {name.partition(".")[0] for name in self.modules}
        self._scopes: dict[str, Names] = {}

    def has(self, module: str) -> bool:
        """Whether a module of this name is there, or a folder of modules."""
        return module in self.modules or any(name.startswith(f"{module}.") for name in self.modules)

    def scope(self, module: str) -> Names:
        """The names of a module. Raises SyntaxError where its text is no Python that this interpreter reads."""
        if module not in self._scopes:
            text = self.modules.get(module, Module(b"", module))
            self._scopes[module] = names_of(_parsed(module, text.text), text.package)
        return self._scopes[module]

    def is_bound(self, module: str, qualname: str) -> bool:
        """Whether a name is there whatever the conditions under which the module runs; of a method, whether it is."""
        if "." in qualname:
            return bool(self.find(module, qualname))
        name = self.scope(module).get(qualname)
        return name is not None and name.always and bool(name.values)

    def find(self, module: str, qualname: str) -> list[Thing]:
        """What a dotted name of a module may stand for; nothing where there is no such name.

        Raises:
            SyntaxError: a module that has to be read is no Python that this interpreter reads.
        """
        head, *rest = qualname.split(".")
        things = self._named(module, head, frozenset())
        for name in rest:
            things = [found for thing in things for found in self._member(thing, name, frozenset())]
        return things

    def definitions(self, qualname: str) -> Iterator[tuple[str, Function]]:
        """Every module that defines a function, or a class with a method, of this dotted name, and the definition."""
        words = [word.encode() for word in qualname.split(".")]
        for module, held in self.modules.items():
            if all(word in held.text for word in words):
                yield from ((module, node) for node in self._defined(module, qualname))

    def _defined(self, module: str, qualname: str) -> list[Function]:
        try:
            things = self.find(module, qualname)
        except SyntaxError:
            return []
        functions = (thing.node for thing in things if thing.module == module)
        return [node for node in functions if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))][:1]

    def _named(self, module: str, name: str, seen: _Seen) -> list[Thing]:
        if (module, name) in seen:
            return []
        seen = seen | {(module, name)}
        names = self.scope(module)
        if name in names:
            return [thing for value in names[name].values for thing in self._follow(module, value, seen)]
        if module in self.modules and self.has(f"{module}.{name}") and self.modules[module].package == module:
            return [Thing(f"{module}.{name}")]
        sources = [value.module for value in names.get(STAR, Name((), False)).values if isinstance(value, Imported)]
        return [thing for source in sources if self.has(source) for thing in self._named(source, name, seen)]

    def _follow(self, module: str, value: Value, seen: _Seen) -> list[Thing]:
        if isinstance(value, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Constant)):
            return [Thing(module, value)]
        if isinstance(value, Imported):
            return self._imported(value, seen)
        if isinstance(value, ast.Name) and value.id in self.scope(module):
            return self._named(module, value.id, seen)
        if isinstance(value, ast.Attribute):
            holders = self._follow(module, value.value, seen)
            return [found for holder in holders for found in self._member(holder, value.attr, seen)]
        if isinstance(value, ast.Call) and value.args and not ast.unparse(value.func).endswith("partial"):
            wrapped = self._follow(module, value.args[0], seen)
            if any(isinstance(thing.node, (ast.FunctionDef, ast.AsyncFunctionDef)) for thing in wrapped):
                return wrapped
        return [Thing(module, outside=ast.unparse(value) if value is not None else "a value of a loop or of unpacking")]

    def _imported(self, value: Imported, seen: _Seen) -> list[Thing]:
        if value.module.partition(".")[0] not in self._roots:
            return [Thing(value.module, outside=".".join(filter(None, (value.module, value.name))))]
        if not self.has(value.module):
            return []
        return [Thing(value.module)] if value.name is None else self._of_module(value.module, value.name, seen)

    def _of_module(self, module: str, name: str, seen: _Seen) -> list[Thing]:
        found = self._named(module, name, seen)
        return found or ([Thing(f"{module}.{name}")] if self.has(f"{module}.{name}") else [])

    def _member(self, thing: Thing, name: str, seen: _Seen) -> list[Thing]:
        """What an attribute of a module or of a class is, in the order in which Python looks."""
        if thing.outside:
            return [Thing(thing.module, outside=f"{thing.outside}.{name}")]
        if thing.node is None:
            return self._of_module(thing.module, name, seen)
        if not isinstance(thing.node, ast.ClassDef):
            return []
        package = self.modules[thing.module].package
        own = names_of(thing.node.body, package).get(name)
        if own is not None:
            return [found for value in own.values for found in self._follow(thing.module, value, seen)]
        return self._inherited(thing.module, thing.node, name, seen)

    def _inherited(self, module: str, node: ast.ClassDef, name: str, seen: _Seen) -> list[Thing]:
        """Of the first base in the release that has it; else of the first that cannot be read."""
        key = (module, f"{node.name}.{name}")
        if key in seen:
            return []
        unread: list[Thing] = []
        for base in node.bases:
            for holder in self._follow(module, base, seen | {key}):
                found = [] if holder.outside == "object" else self._member(holder, name, seen | {key})
                if any(not thing.outside for thing in found):
                    return found
                unread += found
        return unread


def _parsed(module: str, text: bytes) -> list[ast.stmt]:
    try:
        return ast.parse(text, module).body
    except ValueError as error:  # a null byte, before Python 3.12
        raise SyntaxError(f"{error} ({module})") from error
