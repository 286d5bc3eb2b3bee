"""What the user's one line does and says: switches, machines, wrong values, the handle."""

from __future__ import annotations

import dataclasses
import importlib
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from importlib import metadata

import pytest

import patcher
from patcher import environment, patch_for_mac
from patcher.changes import environment as defaults
from patcher.engine import session
from patcher.engine.ledger import LEDGER
from patcher.engine.model import EnvDefault
from patcher.errors import InvalidSwitch, NoMps, PatcherError, RefusedChange
from patcher.macs import machine
from patcher.macs.machine import Machine
from tests.engine.conftest import OURS, Library, patch
from tests.machines import M3_MAX

LINUX = dataclasses.replace(M3_MAX, system="Linux", chip="x86_64", macos=None, mps=False)
SWITCHES = ("FORCE_MPS", "DISABLE_AUTO_PADDING_FREE", "ENABLE_MLX_QUANT", "VERBOSE", "SIMULATE_MAC")


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, library: Library) -> Iterator[None]:
    """No switch is set, the catalogue is one change of a tiny library, and nothing stays patched."""
    for name in (*(f"UNSLOTH_{switch}" for switch in SWITCHES), environment.HIGH, environment.LOW):
        monkeypatch.delenv(name, raising=False)
    library.write("lib", "def f(a): return 'original'")
    library.write(OURS, "def f(a): return 'replaced'")
    monkeypatch.setattr(session, "catalogue", lambda: (patch("lib:f", "f", expects="(a)"),))
    before = list(sys.meta_path)
    yield
    for handle in list(patcher._HANDLES):
        handle.undo()
    assert sys.meta_path == before


def _on(monkeypatch: pytest.MonkeyPatch, here: Machine) -> None:
    monkeypatch.setattr(machine, "detect", lambda simulate=None: here)


# -- which machine -------------------------------------------------------------------------------------------------


def test_on_a_mac_the_patches_are_in_place_until_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The handle reports every change and takes it back; afterwards the process can be patched again."""
    _on(monkeypatch, M3_MAX)
    handle = patch_for_mac()
    lib = importlib.import_module("lib")
    assert handle.active and lib.f(1) == "replaced"
    report = json.loads(handle.report().to_json())
    assert report["machine"] == "Apple M3 Max, 36 GB, macOS 15.5" and report["counts"]["unreviewed"] == 1
    handle.undo()
    assert not handle.active and lib.f(1) == "original" and "undone" in str(handle.report())
    assert patch_for_mac() is not handle and lib.f(1) == "replaced"


@pytest.mark.parametrize("without", ["lib", "lib:f", ["lib:f"], " lib, lib:f "])
def test_a_text_is_names_with_commas_between_them(monkeypatch: pytest.MonkeyPatch, without: str | list[str]) -> None:
    """Not a sequence of letters."""
    _on(monkeypatch, M3_MAX)
    patch_for_mac(without=without)
    assert importlib.import_module("lib").f(1) == "original"


def test_a_second_call_gives_the_same_handle_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with other arguments: the first call decides."""
    _on(monkeypatch, M3_MAX)
    handle = patch_for_mac()
    finders = list(sys.meta_path)
    assert patch_for_mac(device="mps", strict=False) is handle
    assert sys.meta_path == finders and str(patcher.report()) == str(handle.report())


def test_only_the_outermost_with_undoes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that patches for itself does not undo what its caller relies on."""
    _on(monkeypatch, M3_MAX)
    lib = importlib.import_module("lib")
    with patch_for_mac() as outer:
        with patch_for_mac() as inner:
            assert inner is outer and lib.f(1) == "replaced"
        assert lib.f(1) == "replaced"
    assert lib.f(1) == "original" and not outer.active


def test_calls_in_threads_start_one_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads that call it at once get one handle, and one finder is installed."""
    _on(monkeypatch, M3_MAX)
    finders, handles = len(sys.meta_path), []
    threads = [threading.Thread(target=lambda: handles.append(patch_for_mac())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(handles) == 4 and len(set(map(id, handles))) == 1 and len(sys.meta_path) == finders + 1


def test_without_mps_nothing_is_patched_and_the_script_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same script stays usable on other machines; the report says why nothing was done."""
    _on(monkeypatch, LINUX)
    finders, variables = list(sys.meta_path), dict(os.environ)
    with patch_for_mac() as handle:
        assert importlib.import_module("lib").f(1) == "original"
    assert not handle.active and "no mps device here (x86_64, 36 GB, Linux)" in str(handle.report())
    assert sys.meta_path == finders and dict(os.environ) == variables
    assert "has not been called" in str(patcher.report())


def test_where_cuda_is_present_it_is_used_unless_mps_is_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """UNSLOTH_FORCE_MPS, or device="mps", chooses mps all the same."""
    both = dataclasses.replace(M3_MAX, cuda=True)
    _on(monkeypatch, both)
    handle = patch_for_mac()
    assert not handle.active and "CUDA is present; UNSLOTH_FORCE_MPS=1 uses mps" in str(handle.report())
    with patch_for_mac(device="mps") as handle:
        assert handle.active
    monkeypatch.setenv("UNSLOTH_FORCE_MPS", "1")
    assert patch_for_mac().active


def test_a_simulation_that_was_asked_for_and_is_not_started_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Beside CUDA the simulated Mac is not used; the user who asked for it is told."""
    _on(monkeypatch, dataclasses.replace(M3_MAX, cuda=True, simulated=True))
    assert not patch_for_mac(simulate=True).active
    assert "CUDA is present" in caplog.text


@pytest.mark.parametrize("forced_by", ["device", "switch"])
def test_mps_without_a_device_is_an_error_that_says_how_to_simulate_one(
    monkeypatch: pytest.MonkeyPatch, forced_by: str
) -> None:
    """Forced mps on a machine that has none: nothing is changed, and the message names both ways out."""
    _on(monkeypatch, LINUX)
    if forced_by == "switch":
        monkeypatch.setenv("UNSLOTH_FORCE_MPS", "yes")
    expected = (
        r"(?s)no mps device.*macOS 14 or later.*x86_64.*nothing changed.*UNSLOTH_SIMULATE_MAC=1.*simulate='M3 Max"
    )
    with pytest.raises(NoMps, match=expected):
        patch_for_mac(device="mps" if forced_by == "device" else "auto")
    assert LEDGER.entries() == []


# -- wrong values --------------------------------------------------------------------------------------------------


def test_an_unknown_device_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only "auto" and "mps" are devices here."""
    _on(monkeypatch, M3_MAX)
    with pytest.raises(InvalidSwitch, match=r"""(?s)unknown device.*"auto" or "mps".*'cuda:0'.*nothing changed"""):
        patch_for_mac(device="cuda:0")


@pytest.mark.parametrize("switch", SWITCHES[:-1])
def test_a_switch_that_is_neither_on_nor_off_is_named(monkeypatch: pytest.MonkeyPatch, switch: str) -> None:
    """A typing error must not count as yes or no."""
    monkeypatch.setenv(f"UNSLOTH_{switch}", "ture")
    with pytest.raises(InvalidSwitch, match=rf"(?s)UNSLOTH_{switch} is neither on nor off.*1 or 0.*ture.*export"):
        patch_for_mac()


@pytest.mark.parametrize("text", ["RTX 4090", "M9", "M3 Max 35GB", "36GB"])
@pytest.mark.parametrize("by", ["argument", "switch"])
def test_an_unknown_mac_is_named_with_those_that_can_be_simulated(
    monkeypatch: pytest.MonkeyPatch, text: str, by: str
) -> None:
    """The message lists chips, or the memory sizes of the chip."""
    if by == "switch":
        monkeypatch.setenv("UNSLOTH_SIMULATE_MAC", text)
    with pytest.raises(InvalidSwitch, match=r"(?s)(M3 Ultra|one of 36 GB, 48 GB).*" + text):
        patch_for_mac(simulate=text if by == "argument" else None)


@pytest.mark.parametrize("text", ["", "0", "off", "No"])
def test_a_simulation_can_be_switched_off(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """UNSLOTH_SIMULATE_MAC=0 is the machine at hand; simulate=False overrides the variable."""
    monkeypatch.setenv("UNSLOTH_SIMULATE_MAC", text)
    assert environment.switches().simulate is None
    asked: list[str | None] = []
    monkeypatch.setattr(machine, "detect", lambda simulate=None: asked.append(simulate) or LINUX)
    monkeypatch.setenv("UNSLOTH_SIMULATE_MAC", "M1")
    patch_for_mac(simulate=False)
    patch_for_mac()
    patch_for_mac(simulate=True)
    assert asked == [None, "M1", "1"]


def test_mlx_quantization_is_accepted_and_said_to_be_missing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The switch is known and has no effect yet."""
    _on(monkeypatch, M3_MAX)
    monkeypatch.setenv("UNSLOTH_ENABLE_MLX_QUANT", "1")
    handle = patch_for_mac()
    assert handle.active
    assert "not available yet" in caplog.text
    assert "not available yet" in str(handle.report())
    (note,) = json.loads(handle.report().to_json())["notes"]
    assert "UNSLOTH_ENABLE_MLX_QUANT" in note
    handle.undo()
    assert not LEDGER.notes


@pytest.mark.parametrize(
    ("high", "low", "expected"),
    [
        ("1.0", "1.2", r"LOW_WATERMARK_RATIO=1\.2 is above .*HIGH_WATERMARK_RATIO=1: .*Unset .*set it to 0\.9 or less"),
        ("0", None, r"=0 removes the memory limit.*swaps until it hangs"),
        ("1.0", None, None),
        (None, "1.9", None),
        ("1.0", "0.9", None),
    ],
)
def test_memory_limits_that_would_break_are_warned_of_with_the_cure(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, high: str | None, low: str | None, expected: str
) -> None:
    """LOW above HIGH stops torch, HIGH=0 can hang the Mac; one limit alone gets a fitting other one."""
    _on(monkeypatch, M3_MAX)
    for name, value in ((environment.HIGH, high), (environment.LOW, low)):
        if value is not None:
            monkeypatch.setenv(name, value)
    patch_for_mac()
    if expected is None:
        assert not caplog.records
    else:
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert re.search(expected, record.getMessage())


@pytest.mark.parametrize("value", ["much", "-1", "2.5"])
def test_a_memory_limit_that_is_no_ratio_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """torch itself would stop with an internal error, at the first tensor."""
    _on(monkeypatch, M3_MAX)
    monkeypatch.setenv(environment.HIGH, value)
    with pytest.raises(InvalidSwitch, match=rf"(?s)HIGH_WATERMARK_RATIO is not a ratio.*0 to 2.*{value}.*unset"):
        patch_for_mac()


@pytest.mark.parametrize(
    ("high", "low"), [(None, None), ("1.0", None), ("0.5", None), ("0", None), (None, "1.9"), (None, "0.3"), ("1", "1")]
)
def test_the_two_memory_limits_always_fit_each_other(
    monkeypatch: pytest.MonkeyPatch, high: str | None, low: str | None
) -> None:
    """Whatever the user has set: LOW is at most HIGH, or there is no HIGH; the user's values stay."""
    _on(monkeypatch, M3_MAX)
    limits = [
        c for c in defaults.CHANGES if isinstance(c, EnvDefault) and c.name in (environment.HIGH, environment.LOW)
    ]
    monkeypatch.setattr(session, "catalogue", lambda: tuple(limits))
    for name, value in ((environment.HIGH, high), (environment.LOW, low)):
        if value is not None:
            monkeypatch.setenv(name, value)
    with patch_for_mac():
        set_high, set_low = os.environ[environment.HIGH], os.environ[environment.LOW]
    assert float(set_low) <= float(set_high) or float(set_high) == 0
    assert set_high == (high or set_high) and set_low == (low or set_low)


def test_errors_are_no_import_errors() -> None:
    """Optional-import guards upstream would swallow them."""
    kinds = [kind for kind in vars(patcher.errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert RefusedChange in kinds and all(issubclass(kind, PatcherError) for kind in kinds)
    assert not issubclass(PatcherError, ImportError)


# -- verbose -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["argument", "switch"])
def test_verbose_prints_each_change_as_it_is_applied(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], by: str
) -> None:
    """A line on stderr at the import that applies the change; nothing without verbose."""
    _on(monkeypatch, M3_MAX)
    logger = logging.getLogger("patcher")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "propagate", False)
    if by == "switch":
        monkeypatch.setenv("UNSLOTH_VERBOSE", "1")
    level = logger.level
    handle = patch_for_mac(verbose=True if by == "argument" else None)
    assert "lib:f" not in capsys.readouterr().err
    importlib.import_module("lib")
    assert "patcher: unreviewed lib:f" in capsys.readouterr().err
    handle.undo()
    assert (logger.level, logger.handlers) == (level, [])
    _on(monkeypatch, LINUX)
    assert not patch_for_mac(verbose=True).active
    assert (logger.level, logger.handlers) == (level, [])


@pytest.mark.parametrize(("version", "set_to"), [("2026.9.14", "1"), ("2026.10.1", None), ("2026.10.9", None)])
def test_padding_free_batches_are_off_for_releases_in_which_they_are_wrong(
    version: str, set_to: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user's own setting is kept, as any is."""
    name = "UNSLOTH_DISABLE_AUTO_PADDING_FREE"
    (change,) = (c for c in defaults.CHANGES if isinstance(c, EnvDefault) and c.name == name)
    monkeypatch.setattr(session, "catalogue", lambda: (change,))
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda package: version if package == "unsloth" else real(package))
    handle = patch_for_mac(simulate=True)
    assert os.environ.get(name) == set_to
    handle.undo()
    assert name not in os.environ
