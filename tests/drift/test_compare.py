"""Every way in which a change can stand to a release, in releases of a few lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from patcher.drift.compare import Status, compare, targeted
from patcher.engine.model import EnvDefault
from tests.drift.fakes import patch, release, substitute, texts

FITS, SIGNATURE, NAME, UNCLEAR = Status.FITS, Status.SIGNATURE, Status.NAME, Status.UNCLEAR
GOOD, BAD = "def f(a, b=2): pass\n", "def f(a, b, c): pass\n"


@pytest.mark.parametrize(
    ("source", "status"),
    [
        pytest.param(GOOD, FITS, id="as expected"),
        pytest.param("def f(a: int, b: str = 'x') -> None: pass", FITS, id="annotated"),
        pytest.param("async def f(a, b=2): pass", FITS, id="async"),
        pytest.param("@anything\n@functools.cache\ndef f(a, b=2): pass", FITS, id="decorated"),
        pytest.param(f"def g(*a): pass\n@functools.wraps(f)\n{BAD}{GOOD}", FITS, id="the last definition"),
        pytest.param(
            "import functools\ndef g(a, b=2): pass\n@functools.wraps(g)\ndef f(*args): pass", FITS, id="wraps"
        ),
        pytest.param(
            "from functools import wraps\ndef g(b): pass\n@wraps(g)\ndef f(a, b=2): pass", SIGNATURE, id="wraps another"
        ),
        pytest.param(f"if x:\n    {GOOD}", FITS, id="if"),
        pytest.param(f"if x:\n    {GOOD}else:\n    {BAD}", FITS, id="one of two branches"),
        pytest.param(f"if x:\n    {BAD}else:\n    {BAD}", SIGNATURE, id="both branches"),
        pytest.param(f"{BAD}if x:\n    {GOOD}", FITS, id="redefined in a branch"),
        pytest.param(f"try:\n    {GOOD}except ImportError:\n    f = None", FITS, id="try"),
        pytest.param(f"with x:\n    {GOOD}", FITS, id="with"),
        pytest.param(f"match x:\n    case 1:\n        {GOOD}", FITS, id="match"),
        pytest.param(f"for x in y:\n    {GOOD}", FITS, id="for"),
        pytest.param("def g(a, b=2): pass\nf = g", FITS, id="assigned"),
        pytest.param("def g(a, b=2): pass\nf: object = g", FITS, id="assigned with a type"),
        pytest.param("def g(a, b=2): pass\nf = h = g", FITS, id="assigned with others"),
        pytest.param("def g(a, b=2): pass\nx, f = 1, g", FITS, id="unpacked"),
        pytest.param("def g(a, b=2): pass\nf = compile(g, dynamic=True)", FITS, id="wrapped by a call"),
        pytest.param(f"{GOOD}f = compile(f)", FITS, id="wrapped under its own name"),
        pytest.param("import m\nf = m.g", UNCLEAR, id="of another library"),
        pytest.param("from functools import partial\ndef g(a, b=2): pass\nf = partial(g, 1)", UNCLEAR, id="partial"),
        pytest.param("x, f = h()", UNCLEAR, id="unpacked from a call"),
        pytest.param("f = 3", UNCLEAR, id="no function"),
        pytest.param("f = f", NAME, id="of itself"),
        pytest.param("f = g\ng = f", NAME, id="in a circle"),
        pytest.param(BAD, SIGNATURE, id="other parameters"),
        pytest.param("def f(a, *, b=2): pass", SIGNATURE, id="another kind"),
        pytest.param("def f(a, b): pass", SIGNATURE, id="no default"),
        pytest.param("class f:\n    def __init__(self, a, b=2): pass", FITS, id="a class"),
        pytest.param("class f: pass", UNCLEAR, id="a class without __init__"),
        pytest.param("def g(a, b=2): pass", NAME, id="renamed"),
        pytest.param(f"{GOOD}del f", NAME, id="deleted"),
        pytest.param("if TYPE_CHECKING:\n    from x import f", NAME, id="for type checkers"),
        pytest.param(f"def g():\n    {GOOD}", NAME, id="inside another function"),
        pytest.param("def f(a, b=2:", UNCLEAR, id="no Python"),
        pytest.param("\0", UNCLEAR, id="a null byte"),
    ],
)
def test_a_function_of_a_module(tmp_path: Path, source: str, status: Status) -> None:
    """As the body of the module leaves it."""
    assert compare(patch("unsloth.m:f"), texts(tmp_path, {"unsloth/m.py": source})).status is status


@pytest.mark.parametrize(
    ("imports", "status"),
    [
        ("from unsloth.p.n import f", FITS),
        ("from .n import f", FITS),
        ("from ..p.n import g as f", SIGNATURE),
        ("from . import n\nf = n.f", FITS),
        ("import unsloth.p.n as n\nf = n.f", FITS),
        ("import unsloth.p.n\nf = unsloth.p.n.f", FITS),
        ("from .n import *", FITS),
        ("from .n import f\nfrom .n import g as f", SIGNATURE),
        ("from .n import h as f", NAME),
        ("from .gone import f", NAME),
        ("from .all import f", FITS),
        ("from torch import f", UNCLEAR),
    ],
)
def test_what_a_module_imports_is_its_own(tmp_path: Path, imports: str, status: Status) -> None:
    """A change may have the importing module as its target; what another library has cannot be read."""
    files = {"unsloth/__init__.py": "", "unsloth/p/__init__.py": "", "unsloth/p/n.py": GOOD + "def g(a): pass"}
    files |= {"unsloth/p/all.py": "from unsloth.p import n\nfrom .n import *", "unsloth/p/m.py": imports}
    assert compare(patch("unsloth.p.m:f"), texts(tmp_path, files)).status is status


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("class C:\n    @staticmethod\n    def f(a, b=2): pass", FITS),
        ("class C:\n    def f(a, b, c): pass", SIGNATURE),
        ("class C: pass", NAME),
        ("def C(): pass", NAME),
        ("class D: pass", NAME),
        ("class B:\n    def f(a, b=2): pass\nclass C(B): pass", FITS),
        ("from unsloth.n import B\nclass C(B): pass", FITS),
        ("from unsloth import n\nclass C(n.B): pass", FITS),
        ("from unsloth.n import B\nclass A(object): pass\nclass C(A, B): pass", FITS),
        ("import torch\nfrom unsloth.n import B\nclass C(torch.F, B): pass", FITS),
        ("import torch\nclass C(torch.F): pass", UNCLEAR),
        ("class C(C): pass", NAME),
        ("class B:\n    def g(a, b=2): pass\nclass C(B):\n    f = B.g", FITS),
        ("if x:\n    class C:\n        if y:\n            def f(a, b=2): pass", FITS),
    ],
)
def test_a_method(tmp_path: Path, source: str, status: Status) -> None:
    """Of the class, or of a base that the release has."""
    files = {"unsloth/m.py": source, "unsloth/n.py": "class B:\n    def f(a, b=2): pass", "unsloth/__init__.py": ""}
    assert compare(patch("unsloth.m:C.f"), texts(tmp_path, files)).status is status


def test_what_moved_is_found_where_it_is(tmp_path: Path) -> None:
    """With the parameters that it has there; a module that only imports it is no such place."""
    files = {"unsloth/m.py": "", "unsloth/n.py": BAD, "unsloth/o.py": "from .n import f", "unsloth/bad.py": "def f(:"}
    answer = compare(patch("unsloth.m:f"), texts(tmp_path, files))
    assert (answer.status, answer.elsewhere) == (NAME, ("unsloth.n:f(a, b, c)",))
    gone = compare(patch("unsloth.gone:f"), texts(tmp_path, files))
    assert (gone.status, gone.elsewhere) == (Status.MODULE, ("unsloth.n:f(a, b, c)",))
    method = compare(
        patch("unsloth.m:C.f"), texts(tmp_path, {"unsloth/m.py": "", "unsloth/n.py": f"class C:\n    {GOOD}"})
    )
    assert method.elsewhere == ("unsloth.n:C.f(a, b=2)",)


def test_parameters_are_shown_as_a_change_writes_them(tmp_path: Path) -> None:
    """Without annotations, with defaults; those of other branches too."""
    source = "if x:\n    def f(a: int, /, *b: str, c: int = 3, **d: int): pass\nelse:\n    def f(a, b=2): pass"
    refused = compare(patch("unsloth.m:f", "()"), texts(tmp_path, {"unsloth/m.py": source}))
    assert refused.found == "(a, /, *b, c=3, **d) or (a, b=2)"
    fitting = compare(patch("unsloth.m:f"), texts(tmp_path, {"unsloth/m.py": source}))
    assert (fitting.status, fitting.found) == (FITS, "(a, /, *b, c=3, **d)")


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("", FITS),
        ("f = 1", Status.SUPPLIED),
        ("def f(): pass", Status.SUPPLIED),
        ("from torch import f", Status.SUPPLIED),
        ("if x:\n    f = 1", FITS),
        ("if x:\n    f = 1\nelif y:\n    f = 2", FITS),
        ("if x:\n    f = 1\nelse:\n    f = 2", Status.SUPPLIED),
        ("f = 1\ndel f", FITS),
    ],
)
def test_what_a_change_adds(tmp_path: Path, source: str, status: Status) -> None:
    """Upstream supplies it where it has the name whatever the conditions: for a Mac there was none before."""
    files = {"unsloth/m.py": source}
    answer = compare(patch("unsloth.m:f", None, adds=True), texts(tmp_path, files))
    assert answer.status is status and answer.fits
    assert compare(patch("unsloth.n:f", adds=True), texts(tmp_path, files)).status is Status.MODULE
    assert compare(patch("unsloth.m:C.f", adds=True), texts(tmp_path, files)).status is NAME


def test_the_constants_of_a_module(tmp_path: Path) -> None:
    """Names of every kind count; those that are missing are named."""
    files = {"unsloth/m.py": "from torch import A\nB: int = 1\nif x:\n    C = 1\nfor D in y: pass\nwith z as E: pass"}
    there = substitute("unsloth.m", *"ABCDE", references={"B": "x:y"})
    assert compare(there, texts(tmp_path, files)).status is FITS
    answer = compare(substitute("unsloth.m", "A", "F", references={"G": "x:y"}), texts(tmp_path, files))
    assert (answer.status, answer.found) == (Status.CONSTANT, "F, G")
    assert compare(substitute("unsloth.n", "A"), texts(tmp_path, files)).status is Status.MODULE


def test_names_that_may_be_lacking_are_not_missed(tmp_path: Path) -> None:
    """Those that the change names, and no other."""
    files = {"unsloth/m.py": "A = 1"}
    assert compare(substitute("unsloth.m", "A", "B", may_lack=("B",)), texts(tmp_path, files)).status is FITS
    answer = compare(substitute("unsloth.m", "A", "B", "C", may_lack=("B",)), texts(tmp_path, files))
    assert (answer.status, answer.found) == (Status.CONSTANT, "C")


@pytest.mark.parametrize(("version", "status"), [("2026.11.1", NAME), ("2026.11.2", Status.NEEDLESS)])
def test_what_had_not_come_yet_is_not_needed(tmp_path: Path, version: str, status: Status) -> None:
    """The release is 2026.11.1; one that has the name is changed whatever its version."""
    files = {"unsloth/m.py": GOOD}
    assert compare(patch("unsloth.m:gone", since=version), texts(tmp_path, files)).status is status
    module = Status.NEEDLESS if status is Status.NEEDLESS else Status.MODULE
    assert compare(patch("unsloth.n:f", since=version), texts(tmp_path, files)).status is module
    assert compare(patch("unsloth.m:f", "(a, b=2)", since=version), texts(tmp_path, files)).status is FITS


@pytest.mark.parametrize(("version", "status"), [("2026.11.1", Status.NEEDLESS), ("2026.11.2", FITS)])
def test_a_release_may_do_without_a_change(tmp_path: Path, version: str, status: Status) -> None:
    """From the version on that the change names."""
    files = {"unsloth/m.py": GOOD}
    answer = compare(patch("unsloth.m:f", "(a, b=2)", before=version), texts(tmp_path, files))
    assert answer.status is status and answer.fits


def test_the_change_for_the_release_is_chosen(tmp_path: Path) -> None:
    """Of two for one target that which was reviewed for this version; other libraries' and variables are left out."""
    new, old = patch("unsloth.m:f", "(new)", reviewed="==2026.11.1"), patch("unsloth.m:f", "(old)")
    other = patch("trl.m:f", distribution="trl")
    known = release(tmp_path, {"unsloth/m.py": ""})
    text = {"distribution": "unsloth", "reviewed": "", "why": "", "until": "", "needed_for": None}
    variable = EnvDefault(name="A", value="1", upstream=new.upstream, **text)  # type: ignore[arg-type]
    assert targeted([new, old, other, variable], [known]) == (new,)
    assert targeted([old, new], [known]) == (new,)
