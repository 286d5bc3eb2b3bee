"""Every change of the catalogue: complete, in form, and still fitting the libraries that are installed."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet

from patcher.changes import catalogue, changes_of, files
from patcher.engine.choice import switched_off
from patcher.engine.model import EVERYWHERE, AnyChange, EnvDefault, Kernel, Patch, Shim, Substitute
from patcher.engine.signatures import parse_signature, same_shape
from patcher.engine.targets import is_expected, load
from patcher.macs.mac import DEFAULT_TORCH, TORCH
from tests.process import ROOT, answer, run_python

REPLACEMENTS = ROOT / "patcher" / "replacements"
LIBRARIES = {"accelerate", "bitsandbytes", "peft", "transformers", "triton", "trl", "unsloth", "unsloth_zoo"}

CATALOGUE = catalogue()
PATCHES = [change for change in CATALOGUE if isinstance(change, Patch)]
OF_TORCH = [change for change in PATCHES if change.distribution == "torch"]
OF_OTHERS = [change for change in PATCHES if change.distribution != "torch"]

KEY = attrgetter("key")
every_change = pytest.mark.parametrize("change", CATALOGUE, ids=KEY)
PROPER = {"Apple", "Inductor", "Metal", "Triton", "Unsloth"}
"""Words that begin a sentence with a capital letter because they are names."""
ISSUE = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+/(issues|pull)/\d+")
COMPILED = {".cpp", ".h", ".metal", ".mm", ".rs"}
SITE_PACKAGES = Path(pytest.__file__).parents[1]

every_file = pytest.mark.parametrize("file", files())


# -- form ----------------------------------------------------------------------------------------------------------


def test_the_catalogue_is_the_files() -> None:
    """A new file in changes/ is found without being registered anywhere; one version has one change for a target."""
    assert len(CATALOGUE) == sum(len(changes_of(file)) for file in files())
    in_force = [change for change in CATALOGUE if isinstance(change, (Shim, EnvDefault)) or _is_for_installed(change)]
    assert [key for key, times in Counter(change.key for change in in_force).items() if times > 1] == []


@every_change
def test_a_change_says_why_and_until_when(change: AnyChange) -> None:
    """One sentence each, in one form, so that the report reads as one text; no date and no "never" is a condition."""
    for text in (change.why, change.until):
        assert " " in text.strip() == text and "\n" not in text
        assert not text.endswith((".", "!", ";", ",")) and not re.search(r"[.!?;] ", text), text
        first = re.split(r"[ ,'(=]", text)[0]
        assert first in PROPER or not re.fullmatch("[A-Z][a-z]*", first), f"{first}: lower case, or a name"
    assert not change.until.startswith("never")


@every_change
def test_upstream_is_where_the_change_says(change: AnyChange) -> None:
    """The installed library has the file, and the file the symbol; an issue is an address that a browser opens."""
    upstream = change.upstream
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", upstream.repository) and all(map(ISSUE.fullmatch, upstream.issues))
    path = SITE_PACKAGES / upstream.path
    if not upstream.installed:
        assert path.suffix in COMPILED and not path.exists(), f"{upstream.path} is installed and can be looked into"
        return
    assert path.is_file(), upstream.path
    text = path.read_text()
    if path.suffix == ".py":
        assert _defines(ast.parse(text).body, upstream.symbol.split(".")), f"{upstream.path}: {upstream.symbol}"
    else:
        assert re.search(rf"\b{re.escape(upstream.symbol)}\b", text), f"{upstream.path}: {upstream.symbol}"


@every_change
def test_the_installed_version_is_the_one_that_was_read(change: AnyChange) -> None:
    """``reviewed`` is one version for each library, and names no unreleased one; a shim's is its own.

    Of torch it is from the one that computes here to the one that a Mac gets.
    """
    if change.distribution == "torch":
        assert change.reviewed == f">={TORCH['2.13']},<={DEFAULT_TORCH}"
    else:
        operators = {part.operator for part in SpecifierSet(change.reviewed)}
        assert operators == {"=="} and "*" not in change.reviewed
    if isinstance(change, Shim):
        assert change.version in SpecifierSet(change.reviewed)
        return
    assert any(_is_for_installed(other) for other in CATALOGUE if other.key == change.key)
    if change.distribution != "tokenizers":  # of which nothing else is changed
        assert change.reviewed == importlib.import_module(f"patcher.changes.{change.distribution}").REVIEWED


@pytest.mark.parametrize(
    "target",
    [
        "transformers.trainer:Trainer._save_checkpoint",  # whole or absent
        "transformers.trainer_utils:rotate_checkpoints",
        "transformers.trainer:Trainer._run_epoch",  # the order after a resume
        "transformers.trainer:Trainer._prepare_inputs",  # rows without tokens
        "accelerate.accelerator:Accelerator.backward",  # a loss that is no number
    ],
)
def test_what_is_mended_on_every_device_has_one_switch(target: str) -> None:
    """``without=("everywhere",)`` leaves it out, and nothing that training on a Mac needs."""
    off = switched_off(CATALOGUE, (EVERYWHERE,))
    assert target in off
    assert [change.key for change in CATALOGUE if change.key in off and change.required] == []


@every_file
def test_a_file_is_named_after_its_library_and_its_replacements(file: str) -> None:
    """changes/x/y.py says what replacements/x/y.py does; replacements may also be shared with another change file."""
    changes = changes_of(file)
    if file != "environment":
        distributions = {change.distribution.replace("-", "_") for change in changes}
        assert len(distributions) == 1
        (distribution,) = distributions
        assert file.partition(".")[0] == distribution
    used = {module.removeprefix("patcher.replacements.") for module in _replacement_modules(changes)}
    assert used <= set(files())
    if _replacements_of(file).exists():
        assert file in used


def test_every_replacement_file_belongs_to_a_change_file() -> None:
    """Nothing is left behind when a change file is deleted."""
    found = (path for path in REPLACEMENTS.rglob("*.py") if path.stem != "__init__")
    names = {".".join(path.relative_to(REPLACEMENTS).with_suffix("").parts) for path in found}
    assert names <= set(files())


@every_file
def test_a_replacement_imports_no_patched_library_at_its_top(file: str) -> None:
    """It is imported while that library's own module is: an import at the top would be circular, or too early."""
    path = _replacements_of(file)
    if not path.exists():
        return
    roots = {name.partition(".")[0] for name in _imports_of(ast.parse(path.read_text()).body)}
    assert roots & LIBRARIES == set()


def test_the_catalogue_and_patch_for_mac_import_no_torch(answer_of: Callable[..., Any]) -> None:
    """Reading every change, and installing all of them, imports none of the libraries."""
    imported = answer_of(
        "from patcher.changes import catalogue\n"
        "catalogue()\n"
        "from patcher import patch_for_mac\n"
        "patch_for_mac(simulate='M1 8GB').report().to_json()\n"
        f"answer(sorted({sorted(LIBRARIES | {'torch', 'numpy', 'rich', 'typer'})!r} & sys.modules.keys()))\n"
    )
    assert imported == []


# -- replacements --------------------------------------------------------------------------------------------------


OF_TORCHSCRIPT = "torch.amp.autocast_mode:autocast.__init__"
"""The one whose original source is read instead: torch.jit.script compiles it where a script says ``with autocast``."""


@pytest.mark.parametrize("patch", PATCHES, ids=KEY)
def test_a_replacement_has_its_targets_name_and_parameters(patch: Patch) -> None:
    """Every call of the target is a call of the replacement; inspect.getsource reads the replacement's own source."""
    replacement = load(patch.replacement)
    if patch.expects is None:
        return
    assert callable(replacement)
    found, expected = inspect.signature(replacement), parse_signature(patch.expects)
    assert same_shape(found, expected) or _takes_all_of(found, expected), f"{found} for {expected}"
    name = patch.qualname.rpartition(".")[2]
    assert replacement.__name__ == name or name == "__init__"
    if patch.target == OF_TORCHSCRIPT:
        assert inspect.unwrap(replacement).__module__ == patch.module
    elif inspect.isfunction(inspect.unwrap(replacement)):
        assert inspect.unwrap(replacement).__module__.startswith("patcher.")
        assert f"def {replacement.__name__}(" in inspect.getsource(replacement)


def _takes_all_of(found: inspect.Signature, expected: inspect.Signature) -> bool:
    """Whether ``found`` begins as ``expected`` does and takes the others by keyword only, some as ``**rest``."""
    kind = inspect.Parameter
    named = [p for p in found.parameters.values() if p.kind is kind.POSITIONAL_OR_KEYWORD]
    by_keyword = {p.name for p in found.parameters.values() if p.kind is kind.KEYWORD_ONLY}
    same_start = same_shape(
        inspect.Signature(named), inspect.Signature(list(expected.parameters.values())[: len(named)])
    )
    takes_any = any(p.kind is kind.VAR_KEYWORD for p in found.parameters.values())
    return same_start and takes_any and by_keyword <= set(expected.parameters)


@pytest.mark.parametrize("change", [c for c in CATALOGUE if isinstance(c, (Kernel, Substitute))], ids=KEY)
def test_kernels_and_conditions_can_be_imported(change: Kernel | Substitute) -> None:
    """What a change refers to exists."""
    for reference in _references_of(change):
        assert load(reference) is not None
    if isinstance(change, Substitute) and change.around is not None:
        assert hasattr(load(change.around)(), "__enter__")


# -- drift ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def of_installed_torch(answer_of: Callable[..., Any]) -> dict[str, list[object]]:
    """Target to [exists, accepts its `expects`] in a torch that nobody has patched."""
    found: dict[str, list[object]] = answer_of(
        "import torch\n"
        "from tests.contract.test_changes import OF_TORCH, look_at\n"
        "answer({patch.target: look_at(patch) for patch in OF_TORCH})\n"
    )
    return found


def look_at(patch: Patch) -> tuple[bool, str | None]:
    """Whether the target exists in this process, and its parameters as text."""
    try:
        target = load(patch.target)
    except AttributeError:
        return False, None
    return True, str(inspect.signature(target)) if patch.expects and not patch.adds else None


@pytest.mark.parametrize("patch", OF_TORCH, ids=KEY)
def test_a_target_in_torch_is_as_expected(patch: Patch, of_installed_torch: dict[str, list[Any]]) -> None:
    """The installed torch has the function with the expected parameters, and lacks what a change adds."""
    exists, parameters = of_installed_torch[patch.target]
    assert exists is not patch.adds
    if parameters is not None:
        parameters = parameters.partition(" -> ")[0]
        assert is_expected(patch, _signature_from(parameters)), parameters


@pytest.mark.parametrize("patch", OF_OTHERS, ids=KEY)
def test_a_target_in_another_library_is_as_expected(patch: Patch) -> None:
    """The source of the installed library defines the function with the expected parameters, or the value."""
    if patch.adds or patch.before:
        return  # shown by importing the library: test_lifecycle.py; what is for earlier releases in versions/
    body, path = _body_of(_defined_in(patch)), patch.qualname.split(".")
    definitions = list(_definitions(body, path))
    assert definitions or (patch.expects is None and _defines(body, path)), f"{patch.module} has no {patch.qualname}"
    if patch.expects is not None:
        expected = parse_signature(patch.expects)
        written = [f"({ast.unparse(definition.args)})" for definition in definitions]
        assert any(same_shape(parse_signature(text), expected) for text in written), written


@pytest.mark.parametrize("change", [c for c in CATALOGUE if isinstance(c, Substitute) and not c.before], ids=KEY)
def test_a_substituted_module_sets_the_names(change: Substitute) -> None:
    """Its source assigns every name that is given another value."""
    body = ast.Module(_body_of(change.module), [])
    assigned = {node.id for node in ast.walk(body) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    assert {*change.constants, *change.references} <= assigned


@pytest.mark.parametrize(
    "change", [c for c in CATALOGUE if isinstance(c, EnvDefault) and c.distribution == "unsloth"], ids=KEY
)
def test_unsloth_reads_the_variable(change: EnvDefault) -> None:
    """A variable that upstream no longer reads is not set."""
    assert any(change.name in text for text in _sources())


# -- reading -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def answer_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Runs Python in a fresh process; gives what it passed to ``answer(value)``."""
    folder = tmp_path_factory.mktemp("changes")
    head = "import json, sys\ndef answer(value): print('ANSWER' + json.dumps(value))\n"

    def run(code: str) -> Any:
        return answer(run_python("-W", "ignore", "-c", head + code, cwd=folder, timeout=120))

    return run


def _replacements_of(file: str) -> Path:
    return REPLACEMENTS.joinpath(*file.split(".")).with_suffix(".py")


def _is_for_installed(change: AnyChange) -> bool:
    return importlib.metadata.version(change.distribution) in SpecifierSet(change.reviewed)


def _references_of(change: AnyChange) -> list[str]:
    if isinstance(change, (Patch, Kernel)):
        return [change.replacement]
    if isinstance(change, Substitute):
        return [*([change.around] if change.around else []), *change.references.values()]
    return []


def _replacement_modules(changes: tuple[AnyChange, ...]) -> set[str]:
    modules = {reference.partition(":")[0] for change in changes for reference in _references_of(change)}
    return {module for module in modules if module.startswith("patcher.")}


def _imports_of(body: list[ast.stmt]) -> Iterator[str]:
    """Modules imported when ``body`` runs: not those within functions."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _imports_of([child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)])


@cache
def _defined_in(patch: Patch) -> str:
    """The module whose source defines the target: the patch's own, or the one that it is imported from by name."""
    for node in _body_of(patch.module):
        if isinstance(node, ast.ImportFrom) and patch.qualname in {name.name for name in node.names}:
            package = patch.module.split(".")[: -node.level] if node.level else []
            return ".".join([*package, *(node.module or "").split(".")])
    return patch.module


def _body_of(module: str) -> list[ast.stmt]:
    """The statements of an installed module, found without importing its package."""
    root, *rest = module.split(".")
    spec = importlib.util.find_spec(root)
    assert spec is not None and spec.submodule_search_locations is not None, f"{root} is not installed"
    place = Path(spec.submodule_search_locations[0]).joinpath(*rest)
    path = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    assert path.exists(), f"the installed {root} has no module {module}"
    return ast.parse(path.read_text()).body


def _definitions(body: list[ast.stmt], path: list[str]) -> Iterator[ast.FunctionDef]:
    """The functions that a body defines under a dotted name, also within its branches."""
    if not path:
        return
    for node in body:
        if isinstance(node, ast.ClassDef):
            if node.name == path[0]:
                yield from _definitions(node.body, path[1:])
        elif isinstance(node, ast.FunctionDef):
            if [node.name] == path:
                yield node
                yield from _definitions(body, _wrapped_by(node))
        elif isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == path:
            if isinstance(node.value, ast.Name):
                yield from _definitions(body, [node.value.id])
        else:
            inner = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
            yield from _definitions(inner, path)


def _wrapped_by(function: ast.FunctionDef) -> list[str]:
    """The name in ``@functools.wraps(name)``, whose parameters ``inspect.signature`` shows."""
    calls = [decorator for decorator in function.decorator_list if isinstance(decorator, ast.Call)]
    return [ast.unparse(call.args[0]) for call in calls if ast.unparse(call.func) == "functools.wraps"]


def _signature_from(text: str) -> inspect.Signature:
    """The signature that ``str(signature)`` shows, annotations and default values aside."""
    arguments = "".join(_without_reprs(text))
    return parse_signature(arguments)


def _without_reprs(text: str) -> Iterator[str]:
    depth = 0
    for character in text:  # <object at 0x...> is no Python
        depth += character == "<"
        yield "" if depth else character
        depth -= character == ">"


def _defines(body: list[ast.stmt], path: list[str]) -> bool:
    """Whether a body defines, assigns or imports a dotted name, also within its branches."""
    for node in body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            if node.name == path[0] and (not path[1:] or _defines(node.body, path[1:])):
                return True
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            if path in [[alias.asname or alias.name] for alias in node.names]:
                return True
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if path in [[ast.unparse(target)] for target in targets]:
                return True
        else:
            inner = [child for child in ast.iter_child_nodes(node) if isinstance(child, (ast.stmt, ast.ExceptHandler))]
            if _defines(inner, path):
                return True
    return False


@cache
def _sources() -> list[str]:
    found = []
    for package in ("unsloth", "unsloth_zoo"):
        spec = importlib.util.find_spec(package)
        assert spec is not None and spec.submodule_search_locations is not None
        found += [path.read_text() for path in Path(spec.submodule_search_locations[0]).rglob("*.py")]
    return found
