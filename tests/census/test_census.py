"""Every Triton kernel of Unsloth, unsloth_zoo and TRL compiles and gives what it gives in Triton's interpreter.

Those of which that is not so are in ``tests/contract/launch_sites.toml``. A kernel's state is

* ``compared``: a program is made of it, and every tensor that it writes agrees, with a formula where it reads tensors
  by their addresses; of a device function, its callers do;
* ``compiled``: a program is made of it, and it does not run;
* ``refused``: no program is made of it;
* ``undefined``: upstream defines it on other devices only.

``with_torch`` has those that no Metal shader can be written of.

Each call runs in one dtype, by turns, and shaders are only written. ``PATCHER_CENSUS=all``: in every dtype, and the
shaders run; ``make census``.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from tests.census.arguments import Packed
from tests.census.records import Compared, Record
from tests.census.registry import Call
from tests.census.replay import excess
from tests.oracle.client import TRITON
from tests.process import ROOT, run_module

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytestmark = pytest.mark.slow

DATA = tomllib.loads((ROOT / "tests/contract/launch_sites.toml").read_text())
PACKAGES = ("unsloth", "unsloth_zoo", "trl")
ALL = os.environ.get("PATCHER_CENSUS") == "all"
VARIABLES = {"UNSLOTH_ALLOW_CPU": "1", "UNSLOTH_FORCE_GPU_PATH": "1"}


@dataclass(frozen=True)
class Census:
    """Attributes:
    records: by call, what it did through the shim.
    compared: by call, what the interpreter says of its launches.
    made: every kernel that upstream made.
    raises: by call, what it must raise.
    """

    records: dict[str, Record]
    compared: dict[str, list[Compared]]
    made: set[str]
    raises: dict[str, str]

    def of_kernels(self) -> dict[str, list[Compared]]:
        """The launches of each kernel."""
        found = defaultdict(list)
        for launches in self.compared.values():
            for launch in launches:
                found[_short(launch.kernel)].append(launch)
        return found


@pytest.fixture(scope="module")
def census(tmp_path_factory: pytest.TempPathFactory) -> Census:
    """Runs all calls, and their launches once more in the interpreter, in a process each."""
    folder = tmp_path_factory.mktemp("census")
    assert TRITON.is_dir(), f"real Triton is expected in {TRITON}: run make venv"
    which = ("metal", folder / "records", "all") if ALL else ("torch", folder / "records")
    run_module("tests.census.recording", *which, timeout=7200, **VARIABLES)
    path = os.pathsep.join((str(ROOT), str(TRITON)))
    interpreted = {**VARIABLES, "PYTHONPATH": path, "TRITON_INTERPRET": "1"}
    run_module("tests.census.replay", folder / "records", folder / "compared", timeout=7200, **interpreted)
    records, made, raises = torch.load(folder / "records", weights_only=False)
    return Census(records, torch.load(folder / "compared", weights_only=False), set(map(_short, made)), raises)


def _short(kernel: str) -> str:
    """``file:name``."""
    return kernel.rpartition(":")[0]


def listed(part: str) -> dict[str, dict[str, Any]]:
    """The entries of a part of the data file, by ``file:name``."""
    return {f"{entry['file']}:{name}": entry for entry in DATA[part] for name in entry.get("kernels", ())}


def test_calls_do_what_they_should(census: Census) -> None:
    """They run through, but those of which it is known what they raise."""
    wrong = {
        name: record.error or f"raised nothing; {census.raises[name]!r} was expected"
        for name, record in census.records.items()
        if bool(record.error) != bool(census.raises[name]) or census.raises[name] not in record.error
    }
    assert not wrong, "\n".join(f"{name}: {told}" for name, told in wrong.items())


def test_launches_agree(census: Census) -> None:
    """Every tensor after every launch, with torch operators and as a shader."""
    wrong = [
        f"{name}: {launch.kernel}: {told}"
        for name, launches in census.compared.items()
        for launch in launches
        for told in (launch.torch, launch.metal)
        if told
    ]
    assert not wrong, "\n".join(wrong)
    assert sum(map(len, census.compared.values())) > 500


def test_every_kernel_has_its_state(census: Census) -> None:
    """As the data file has it: what upstream adds must be called, and what has come to run must be taken out."""
    compiled = {_short(kernel) for record in census.records.values() for kernel in record.compiled}
    refused = {_short(kernel) for record in census.records.values() for kernel in record.refused}
    ran = {_short(kernel) for record in census.records.values() if not record.error for kernel in record.compiled}
    expected = listed("less")
    wrong = []
    for name in listed("site"):
        if name.partition("/")[0] not in PACKAGES:
            continue
        states = (
            ("compared", name in ran),
            ("compiled", name in compiled),
            ("refused", name in refused),
            ("undefined", name not in census.made),
        )
        found = next((state for state, holds in states if holds), "never called")
        state = expected.get(name, {}).get("state", "compared")
        if found != state:
            wrong.append(f"{name}: {found}, and {state} in the data file")
    assert not wrong, "\n".join(wrong)
    assert not expected.keys() - listed("site").keys()


def test_only_what_is_known_has_no_shader(census: Census) -> None:
    """By kernel, with the reason."""
    found = {
        kernel: {launch.why for launch in launches}
        for kernel, launches in census.of_kernels().items()
        if all(launch.why for launch in launches)
    }
    expected = listed("with_torch")
    assert found.keys() == expected.keys()
    wrong = [f"{name}: {why}" for name, reasons in found.items() for why in reasons if why != expected[name]["why"]]
    assert not wrong, "\n".join(wrong)


def test_a_difference_is_seen() -> None:
    """A rounding is allowed, more than that is not; whole numbers agree exactly."""
    call = Call("", lambda make, dtype: None, torch.float16, terms=64, narrow=False, raises="")
    before, right = torch.zeros(3), torch.tensor([1.0, float("nan"), 0.0])
    assert excess(right.clone(), right, before, call) == 0
    assert 0 < excess(right + 2.0**-22, right, before, call) < 1
    for place, value in ((0, 1.001), (0, float("nan")), (1, 2.0), (2, 1e-3)):
        found = right.clone()
        found[place] = value
        assert excess(found, right, before, call) > 1
    whole = torch.tensor([1, 2])
    assert excess(whole, whole, whole, call) == 0 and excess(whole + 1, whole, whole, call) > 1


def test_arguments_keep_what_they_share() -> None:
    """Two views of one storage, of two types, stay so, and the original is left alone."""
    storage = torch.arange(8, dtype=torch.int32)
    args, named = Packed((storage[2:6:2], [3]), {"bits": storage.view(torch.float32), "dtype": torch.int8}).made()
    args[0][0] = 77
    assert named["bits"].view(torch.int32).tolist() == [0, 1, 77, 3, 4, 5, 6, 7]
    assert args[0].stride() == (2,) and args[1] == [3] and named["dtype"] is torch.int8 and storage[2] == 2
