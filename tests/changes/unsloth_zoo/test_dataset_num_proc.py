"""Data sets are prepared in the training process on the simulated Mac, as Unsloth has it on macOS."""

from __future__ import annotations

from dataclasses import replace

from patcher.changes.unsloth_zoo.dataset_num_proc import CHANGES
from patcher.replacements.unsloth_zoo.dataset_num_proc import _workers_unusable_reason
from tests.machines import M3_MAX


def test_only_the_simulated_mac_has_to_say_it() -> None:
    """On macOS upstream starts no workers itself; on Linux it would fork the process that holds the device."""
    (change,) = CHANGES
    assert change.skip is not None
    assert change.skip(M3_MAX) is not None and change.skip(replace(M3_MAX, simulated=True)) is None
    reason = _workers_unusable_reason()
    assert reason is not None and "fork" in reason
