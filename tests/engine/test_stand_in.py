"""What the ledger puts in the place of a C function."""

from __future__ import annotations

import _bisect
import importlib
import pickle
from types import ModuleType

import pytest

from patcher.engine.ledger import Ledger
from patcher.engine.model import State
from patcher.engine.stand_in import replaced_by
from tests.engine.conftest import OURS, Library, patch

FIXES = """
def bisect(a, x):
    return "replaced"
"""


@pytest.fixture
def there(library: Library) -> ModuleType:
    """A library that has copied a C function."""
    library.write("standing", "from _bisect import bisect_right as bisect\n")
    library.write(OURS, FIXES)
    return importlib.import_module("standing")


def test_a_function_in_the_place_of_a_c_function_equals_it_until_undo(there: ModuleType, ledger: Ledger) -> None:
    """And names its place in a pickle, so that a process without the patch loads the library's own."""
    entry = ledger.apply(patch("standing:bisect", "bisect"), there)
    assert entry.state in (State.APPLIED, State.UNREVIEWED), entry.detail
    found = there.bisect
    assert found([1], 1) == "replaced" and found is not _bisect.bisect_right
    assert (
        found == _bisect.bisect_right
        and hash(found) == hash(_bisect.bisect_right)
        and repr(found) == repr(_bisect.bisect_right)
    )
    assert pickle.loads(pickle.dumps(found)) is found and b"enginefixes" not in pickle.dumps(found)
    assert replaced_by(found) is _bisect.bisect_right and replaced_by(_bisect.bisect_right) is _bisect.bisect_right
    ledger.undo()
    assert there.bisect is _bisect.bisect_right and pickle.loads(pickle.dumps(there.bisect)) is _bisect.bisect_right


def test_a_function_in_the_place_of_a_python_function_stays_what_it_is(library: Library, ledger: Ledger) -> None:
    library.write("standing", "def bisect(a, x):\n    return 'original'\n")
    library.write(OURS, FIXES)
    module = importlib.import_module("standing")
    ledger.apply(patch("standing:bisect", "bisect"), module)
    assert type(module.bisect).__name__ == "function" and module.bisect([1], 1) == "replaced"
    ledger.undo()
