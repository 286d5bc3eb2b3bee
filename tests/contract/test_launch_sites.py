"""Every Triton kernel and every launch in the installed libraries has a verdict in ``launch_sites.toml``.

The sources are read, not imported. A kernel is a function that ``triton.jit`` (or ``gluon.jit``) decorates or is
called with; a launch is ``something[grid](...)`` in a file that mentions Triton. Each ``[[site]]`` of the data file
names a file's kernels and launches and says what keeps an mps device from them:

* ``replaced``: ``by`` names the targets of the patches that take the launching functions' place; where they are in
  the same file, no other function of it leads to a launch, unless ``partly`` says why that is all right;
* ``guarded``: ``guards`` names files and texts in them, the conditions that are false on mps or that raise;
* ``unreachable``: nothing that a user calls leads there; ``why`` says so.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from patcher.changes import catalogue
from patcher.engine.model import Patch

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytestmark = pytest.mark.slow

PACKAGES = ("unsloth", "unsloth_zoo", "trl", "peft", "transformers")
DATA = tomllib.loads(Path(__file__).with_name("launch_sites.toml").read_text())
SITES: list[dict[str, Any]] = DATA["site"]
VERDICTS = {"replaced": "by", "guarded": "guards", "unreachable": "why"}
JIT = re.compile(r"^(triton|gluon)\.jit\b")


@dataclass
class Found:
    """Kernels by name and launches by the expression that is subscripted, with their numbers."""

    kernels: Counter[str] = field(default_factory=Counter)
    launches: Counter[str] = field(default_factory=Counter)


class _Scan(ast.NodeVisitor):
    def __init__(self) -> None:
        self.found = Found()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if any(JIT.match(ast.unparse(decorator)) for decorator in node.decorator_list):
            self.found.kernels[node.name] += 1
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if JIT.match(ast.unparse(node.func)) and node.args:
            self.found.kernels[ast.unparse(node.args[0])] += 1
        elif isinstance(node.func, ast.Subscript) and not isinstance(node.func.slice, ast.Constant):
            self.found.launches[ast.unparse(node.func.value)] += 1
        self.generic_visit(node)


def scan(source: str) -> Found:
    """What one file holds."""
    visitor = _Scan()
    visitor.visit(ast.parse(source))
    return visitor.found


def installed() -> dict[str, Found]:
    """Every file of the packages that mentions Triton and holds a kernel or what looks like a launch."""
    files: dict[str, Found] = {}
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        assert spec is not None and spec.origin is not None, f"{package} is not installed"
        root = Path(spec.origin).parent
        for path in sorted(root.rglob("*.py")):
            source = path.read_text(errors="replace")
            if "triton" not in source:
                continue
            found = scan(source)
            if found.kernels or found.launches:
                files[path.relative_to(root.parent).as_posix()] = found
    return files


@pytest.fixture(scope="module")
def files() -> dict[str, Found]:
    return installed()


def _listed(part: str) -> dict[str, Counter[str]]:
    listed: dict[str, Counter[str]] = {}
    for site in SITES + DATA["no_launch"]:
        listed.setdefault(site["file"], Counter()).update(site.get(part, []))
    return listed


@pytest.mark.parametrize("part", ["kernels", "launches"])
def test_every_one_has_a_verdict(files: dict[str, Found], part: str) -> None:
    """What upstream adds or drops must be looked at: the data file and the sources agree exactly."""
    listed = _listed(part)
    wrong = []
    for name in sorted(files.keys() | listed.keys()):
        here = getattr(files.get(name, Found()), part)
        there = listed.get(name, Counter())
        wrong += [f"no verdict: {name}: {key} (x{n})" for key, n in sorted((here - there).items())]
        wrong += [f"no longer there: {name}: {key} (x{n})" for key, n in sorted((there - here).items())]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("site", SITES, ids=lambda site: f"{site['file']}:{site['verdict']}")
def test_verdict_says_why(site: dict[str, Any]) -> None:
    """Each verdict carries what makes it checkable, and a reason in words."""
    assert site.get(VERDICTS[site["verdict"]]), f"{site['verdict']} needs {VERDICTS[site['verdict']]}"
    assert site.get("why"), "needs a reason"


def test_replaced_by_patches_that_exist() -> None:
    """``by`` holds targets of this project's patches, and they are in the file's own package."""
    targets = {change.target for change in catalogue() if isinstance(change, Patch)}
    missing = [
        f"{site['file']}: {target}"
        for site in SITES
        if site["verdict"] == "replaced"
        for target in site["by"]
        if target not in targets
    ]
    assert not missing, "\n".join(missing)


def test_no_way_around_the_replaced_functions() -> None:
    """Within a file, every public function or class that leads to a launch leads through a patched one."""
    ways = []
    for site in SITES:
        module = site["file"].removesuffix(".py").replace("/", ".")
        patched = {target.partition(":")[2] for target in site.get("by", []) if target.startswith(f"{module}:")}
        if patched and not site.get("partly"):
            around = leading_to_a_launch((_root() / site["file"]).read_text(), patched)
            ways += [f"{site['file']}: {name}" for name in sorted(around) if not name.startswith("_")]
    assert not ways, "\n".join(ways)


def leading_to_a_launch(source: str, patched: set[str]) -> set[str]:
    """Functions, methods (``Class.name``) and classes that launch, or that name one which does.

    Patched ones end the way.
    """
    tree = ast.parse(source)
    ends = set(scan(source).kernels) | patched
    methods = {method: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for method in node.body}
    mentions: dict[str, set[str]] = {}
    leading = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef):
            continue
        owner = methods.get(node)
        name = f"{owner.name}.{node.name}" if owner else node.name
        if name in ends:
            continue
        if owner:
            mentions.setdefault(owner.name, set()).add(name)
        mentions.setdefault(name, set()).update(n.id for n in ast.walk(node) if isinstance(n, ast.Name))
        if scan(ast.unparse(node)).launches or mentions[name] & {"launch", "relaunch"}:
            leading.add(name)
    while further := {name for name, names in mentions.items() if names & leading} - leading:
        leading |= further
    return leading


def _root() -> Path:
    spec = importlib.util.find_spec("unsloth")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parents[1]


def test_guards_are_still_in_the_sources() -> None:
    """The text of each condition is found in the file that is said to hold it."""
    root = _root()
    gone = [
        f"{site['file']}: {guard['file']}: {guard['text']}"
        for site in SITES
        for guard in site.get("guards", [])
        if _squeezed(guard["text"]) not in _squeezed((root / guard["file"]).read_text())
    ]
    assert not gone, "\n".join(gone)


def _squeezed(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def test_a_way_around_is_seen() -> None:
    """A second entry beside the patched one, and a class of which only one half is patched."""
    source = (
        "import triton\n@triton.jit\ndef kernel(): ...\n"
        "def launching(): kernel[grid](x)\n"
        "def entry(): launching()\ndef other(): launching()\n"
        "class Function:\n    def forward(ctx): kernel[grid](x)\n    def backward(ctx): kernel[grid](x)\n"
    )
    assert leading_to_a_launch(source, {"entry", "Function.forward"}) == {
        "launching",
        "other",
        "Function",
        "Function.backward",
    }
    assert not leading_to_a_launch(source, {"launching", "Function.forward", "Function.backward"})


def test_scanner_sees_every_form() -> None:
    """Decorated, wrapped by a call, nested and wrapped at the launch."""
    found = scan(
        "import triton\n"
        "@triton.autotune(configs=[])\n@triton.jit(do_not_specialize=['n'])\ndef a(): ...\n"
        "def b(): ...\nb = triton.jit(b)\n"
        "def build():\n    @triton.jit\n    def c(): ...\n"
        "wrap(a)[(1,)](x)\nb[grid](x)\ntable['key'](x)\n"
    )
    assert found.kernels == Counter(a=1, b=1, c=1)
    assert found.launches == Counter({"wrap(a)": 1, "b": 1})
