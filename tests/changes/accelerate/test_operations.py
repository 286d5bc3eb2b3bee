"""Batches reach mps without a wait, and are right whatever becomes of their source."""

from __future__ import annotations

import pytest

from tests.process import answer, run_python

pytestmark = pytest.mark.slow

PROGRAM = """
from patcher import patch_for_mac
handle = patch_for_mac(simulate="M3 Max 36GB")
import json, torch
from collections import UserDict
from accelerate.utils import send_to_device
from transformers import BatchEncoding
from patcher.engine.ledger import LEDGER
from patcher.replacements.accelerate import operations
from patcher.simulator import faults
from patcher.simulator.meter import Meter

def sent(make, **options):
    '''What arrives of a batch whose tensors are overwritten at once, and the waits until then.'''
    batch = make()
    sources = [value for value in (batch.data if hasattr(batch, "data") else batch).values()]
    with Meter() as meter:
        found = send_to_device(batch, torch.device("mps"), **options)
    for source in sources:
        source.zero_()
    del sources, batch
    return {key: [value.device.type, value.tolist()] for key, value in found.items()}, meter.usage().synchronizations

def plain():
    return {"ids": torch.arange(6).view(2, 3), "mask": torch.ones(3, 2).t(), "pixels": torch.ones(2, dtype=torch.bool)}

found = {"plain": sent(plain), "skipped": sent(plain, skip_keys="mask")}
found["encoding"] = sent(lambda: BatchEncoding(plain()))
with faults.inject("late-copy"):
    found["late"] = sent(plain)
    class Forgets(operations._Sources):
        def keep(self, source): pass
    operations._Sources = Forgets
    found["forgotten"] = sent(plain)
    operations._Sources = Forgets.__base__
held = len(LEDGER.memory(operations._Sources).waiting)
torch.mps.synchronize()
send_to_device(torch.ones(2), "mps")
found["held"] = [held, len(LEDGER.memory(operations._Sources).waiting)]
batch = UserDict(plain())
moved = send_to_device(batch, "mps")
found["not in place"] = [[one["ids"].device.type for one in (batch, moved)], type(moved) is UserDict]
operations.MOST_BYTES = 1
found["large"] = sent(plain)
found["elsewhere"] = send_to_device({"x": torch.ones(2)}, "cpu")["x"].device.type
try:
    send_to_device(torch.ones(2), "nowhere"); found["refused"] = False
except RuntimeError:
    found["refused"] = True
print("ANSWER" + json.dumps(found))
"""

BATCH = {"ids": [[0, 1, 2], [3, 4, 5]], "mask": [[1.0] * 3] * 2, "pixels": [True, True]}


def test_a_batch_is_sent_without_a_wait() -> None:
    """Also where the copy is made late; without a kept source that copy is wrong, which shows that it is needed."""
    found = answer(run_python("-c", PROGRAM))
    for case, waits in (("plain", 0), ("encoding", 0), ("late", 0), ("large", 3)):
        assert found[case] == [{key: ["mps", value] for key, value in BATCH.items()}, waits], case
    skipped, waits = found["skipped"]
    assert skipped["mask"] == ["cpu", [[0.0] * 3] * 2] and waits == 0
    assert found["forgotten"][0] != found["late"][0]
    assert found["held"][0] >= 1 and found["held"][1] == 1
    assert found["not in place"] == [["cpu", "mps"], True]
    assert found["elsewhere"] == "cpu" and found["refused"]
