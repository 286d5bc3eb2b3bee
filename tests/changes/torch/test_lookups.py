"""What is known of indices that were copied to mps: it is right, costs no wait, and is in nobody's way."""

from __future__ import annotations

import pytest

from tests.process import run_python

pytestmark = pytest.mark.slow

START = """
import torch, torch.nn.functional as F
from patcher import patch_for_mac
patch_for_mac(simulate="M1 8GB, torch 2.13")
from patcher.errors import IndexBeyondTable

waits, cpu = [], torch.Tensor.cpu
torch.Tensor.cpu = lambda self, *args: (waits.append(self.shape), cpu(self, *args))[1]
w = torch.randn(10, 4).to("mps")

def refused(call):
    try:
        call()
    except IndexBeyondTable as error:
        return str(error)
    return ""
"""

TOLD = """
ids = torch.tensor([[1, 2], [500, 3]]).to("mps")
assert not refused(lambda: F.embedding(ids[0], w))
assert "500" in refused(lambda: F.embedding(ids[1], w)) and "500" in refused(lambda: F.embedding(ids, w))
assert "-100" in refused(lambda: F.embedding(torch.tensor([1, -100]).to("mps"), w))
scores = torch.randn(3, 10).to("mps")
assert "-100" in refused(lambda: F.cross_entropy(scores, torch.tensor([1, -100, 2]).to("mps"), ignore_index=-1))
assert "11, and 1 more of 3" in refused(lambda: F.cross_entropy(scores, torch.tensor([11, 1, 12]).to("mps")))
view = torch.tensor([1, 2, 500, 3]).to("mps")
before = len(waits)
for _ in range(3):
    assert not refused(lambda: F.embedding(view[:2], w))
assert len(waits) == before + 1, "a view is looked at once"
view[2] = 5
assert not refused(lambda: F.embedding(view, w))
print("TOLD")
"""

QUIET = """
scores = torch.randn(4, 10).to("mps")
for ignored, labels in ((255, [1, 255, 2, 255]), (-1, [-1, 0, 9, 3]), (-100, [-100, 4, 4, 1]), (255, [255] * 4)):
    F.cross_entropy(scores, torch.tensor(labels).to("mps"), ignore_index=ignored)
assert not waits, waits
print("QUIET")
"""

UNHARMED = """
ids = torch.arange(8)
assert torch.vmap(lambda row: row.to("mps"))(ids.view(2, 4)).shape == (2, 4)
gradient = torch.func.grad(lambda table, i: F.embedding(i.to("mps"), table).sum())(w, ids)
assert gradient.sum().item() == 32
value, slope = torch.func.jvp(lambda table: F.embedding(ids.to("mps"), table), (w,), (torch.ones_like(w),))
assert slope.min().item() == slope.max().item() == 1
assert torch.sparse_coo_tensor([[0, 1]], [1, 2], (3,)).to("mps").is_sparse
from torch.fx.experimental.proxy_tensor import make_fx
targets = {str(node.target) for node in make_fx(lambda i: i.to("mps") + 1)(ids).graph.nodes}
assert not any("aminmax" in target or "_local_scalar" in target for target in targets), targets
csr = torch.eye(3).to_sparse_csr()
assert torch.zeros(3, 3).to_sparse_csr().copy_(torch.zeros(3, 3).to_sparse_csr()).layout is torch.sparse_csr
csr.copy_(torch.eye(3).to_sparse_csr())

class Told(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return func.__name__

assert torch.ones(2).as_subclass(Told).to("cpu") == "to"
import threading
errors = []
labels = torch.tensor([1, 2, 20]).to("mps")

def look():
    try:
        for _ in range(20):
            F.cross_entropy(torch.randn(3, 10).to("mps"), labels, ignore_index=20)
    except Exception as error:
        errors.append(error)

threads = [threading.Thread(target=look) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not errors, errors
print("UNHARMED")
"""

JOINED = """
from patcher.replacements.torch import concatenation
concatenation.MOST_ELEMENTS = 8
a, b = torch.ones(3, 4).to("mps"), torch.ones(1, 2).to("mps")
assert torch.cat([a, a], -1).shape == (3, 8) and torch.cat([a, a]).shape == (6, 4)
for wrong in (lambda: torch.cat([a, b], 1), lambda: torch.cat([a, a], 2), lambda: torch.cat([a, torch.ones(3, 4)])):
    try:
        wrong()
    except (RuntimeError, IndexError):
        continue
    raise AssertionError("what torch refuses was put together")
print("JOINED")
"""


@pytest.mark.parametrize(
    ("script", "said"), [(TOLD, "TOLD"), (QUIET, "QUIET"), (UNHARMED, "UNHARMED"), (JOINED, "JOINED")]
)
def test_lookups(script: str, said: str) -> None:
    """Wrong numbers are named by whatever view, ignored labels cost no wait; torch.func and other tensors work.

    Parts that do not fit are torch's to refuse, however large.
    """
    assert said in run_python("-c", START + script).stdout
