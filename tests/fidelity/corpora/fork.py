"""``fork``: what mps can do in a child process, and what goes through a queue to one (torch.multiprocessing).

Metal does not survive fork(): using it in a forked child hangs or kills the process, and no torch up to 2.15 refuses it
first (pytorch#178037; ``is_device_lazy_init_supported`` in the wheels' headers does not name mps). Only what touches no
device works there. Tensors on mps are not shared: ``reduce_storage`` in torch/multiprocessing/reductions.py takes every
storage that is not CUDA's for the CPU's, whose sharing refuses it.
"""

from __future__ import annotations

import os
import pickle
import random
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.fidelity.cases import Case
from tests.fidelity.claims import Claim, Claims, refused, works
from tests.fidelity.expectations import Expectation
from tests.fidelity.measure import Different
from tests.process import run_python

DEVICE = torch.device("mps", 0)
X = torch.ones(2)
FORKED = refused("pytorch#178037")
SHARED = refused("multiprocessing/reductions.py")


def in_child(work: Callable[[], object]) -> object:
    """What a call returns in a forked child of this process; raises what it raises there."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said: tuple[bool, object] = (True, work())
        except BaseException as error:  # noqa: BLE001 - the parent raises it
            said = (False, f"{type(error).__name__}: {error}"[:300])
        os.write(writing, pickle.dumps(said))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    if not answer:
        raise Different("the child died without an answer")
    worked, value = pickle.loads(answer)
    if not worked:
        raise RuntimeError(value)
    return value


def touches(x: torch.Tensor) -> dict[str, Callable[[], object]]:
    """Uses of the device."""
    generator = torch.Generator(device="mps")
    return {
        "empty": lambda: torch.empty(2, device="mps").shape,
        "zeros": lambda: torch.zeros(2, device="mps").tolist(),
        "rand": lambda: torch.rand(2, device="mps").shape,
        "operator": lambda: (x + 1).shape,
        "in-place": lambda: x.add_(1).shape,
        "matmul": lambda: (x @ x).tolist(),
        "to-cpu": lambda: x.cpu().tolist(),
        "to-mps": lambda: torch.ones(2).to("mps").shape,
        "item": lambda: x[0].item(),
        "repr": lambda: repr(x),
        "clone": lambda: x.clone().shape,
        "copy": lambda: torch.empty(3).copy_(x).tolist(),
        "module": lambda: str(nn.Linear(2, 2).to("mps")),
        "backward": lambda: x.detach().requires_grad_().sum().backward(),
        "numpy": lambda: x.cpu().numpy().tolist(),
        "generator": lambda: torch.randn(1, device="mps", generator=generator).shape,
        "synchronize": torch.mps.synchronize,
        "empty_cache": torch.mps.empty_cache,
        "accelerator-synchronize": torch.accelerator.synchronize,
        "event": lambda: torch.mps.Event(enable_timing=True).record(),
        "host-alias": lambda: torch.mps._host_alias_storage(x.untyped_storage()).nbytes(),
    }


def harmless(x: torch.Tensor) -> dict[str, tuple[Callable[[], object], object]]:
    """Work that leaves the device alone, and what it gives."""
    dataset = TensorDataset(torch.arange(6.0))

    def seeded() -> float:
        torch.manual_seed(3)
        return torch.rand(1).item()

    def forgotten() -> tuple[int, ...]:
        view = x[1:]
        shape = tuple(view.shape)
        del view
        return shape

    torch.manual_seed(3)
    return {
        "bad-fork": (torch.mps._is_in_bad_fork, True),
        "available": (torch.backends.mps.is_available, True),
        "device-count": (torch.mps.device_count, 1),
        "accelerator": (lambda: str(torch.accelerator.current_accelerator()), "mps"),
        "metadata": (lambda: (x.shape, x.device.type, x.dtype, x.is_contiguous()), (x.shape, "mps", x.dtype, True)),
        "views": (forgotten, (2,)),
        "cpu-work": (lambda: (torch.arange(3.0) @ torch.arange(3.0)).item(), 5.0),
        "cpu-backward": (lambda: torch.ones(2, requires_grad=True).sum().backward(), None),
        "manual_seed": (seeded, torch.rand(1).item()),
        "seed": (lambda: isinstance(torch.seed(), int), True),
        "fork_rng": (lambda: fork_rng(), True),
        "loader": (lambda: [batch[0].tolist() for batch in DataLoader(dataset, 3)], [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]),
        "state": (lambda: random.Random(1).random(), random.Random(1).random()),
    }


def fork_rng() -> bool:
    """torch asks no device that is not named."""
    before = torch.get_rng_state()
    with torch.random.fork_rng(devices=[]):
        torch.rand(1)
    return torch.equal(before, torch.get_rng_state())


def objects() -> dict[str, object]:
    """What a queue would carry to another process."""
    x = torch.ones(2, device="mps")
    return {
        "tensor": x,
        "view": x[1:],
        "parameter": nn.Parameter(x.clone()),
        "module": nn.Linear(2, 2).to("mps"),
        "list": [torch.ones(1), x],
        "state-dict": nn.Linear(2, 2).to("mps").state_dict(),
        "storage": x.untyped_storage(),
    }


def forked_workers() -> Iterator[tuple[Any, Any]]:
    """Batches of CPU tensors, made by forked workers, go to mps in the parent."""
    loader = DataLoader(TensorDataset(torch.arange(6.0)), 2, num_workers=1, multiprocessing_context="fork")
    yield torch.cat([batch[0].to("mps") for batch in loader]), torch.arange(6.0)


SPAWNED = """
import torch
from patcher.simulator import start
start({mac!r})
import torch.multiprocessing as mp

def work(queue, x):
    queue.put(((x.to("mps") * 2).cpu().tolist(), torch.mps._is_in_bad_fork()))

if __name__ == "__main__":
    context = mp.get_context({method!r})
    queue = context.SimpleQueue()
    process = context.Process(target=work, args=(queue, torch.ones(2)))
    process.start()
    print(queue.get())
    process.join()
"""


class Fork(Claims):
    """Forked children that touch the device and that do not, spawned ones, and what they would be sent."""

    EVERY: ClassVar[int] = 6

    def claims(self) -> Iterator[Claim]:
        x = torch.arange(3.0, device="mps")
        for name, touch in touches(x).items():
            yield self._claim(name, "child", FORKED, lambda touch=touch: iter([(in_child(touch), None)]))
        for name, (work, result) in harmless(x).items():
            yield self._claim(name, "child", works(), lambda work=work, result=result: iter([(in_child(work), result)]))
        yield self._claim("workers", "parent", works(), forked_workers)
        yield self._claim("inherited", "parent", works(), lambda: iter([(self._after_a_child(x), x.cpu() + 1)]))
        for name, value in objects().items():
            yield self._claim(name, "send", SHARED, lambda value=value: iter([(ForkingPickler.dumps(value), None)]))
        yield self._claim("cpu-tensor", "send", works(), lambda: iter([(bool(ForkingPickler.dumps(X)), True)]))
        yield self._claim(
            "device", "send", works(), lambda: iter([(pickle.loads(ForkingPickler.dumps(DEVICE)), DEVICE)])
        )
        yield self._claim("share_memory_", "parent", works(), lambda: iter([(x.share_memory_().is_shared(), True)]))
        for method in ("spawn", "forkserver"):
            yield self._claim("process", method, works(), lambda method=method: self._spawned(method))

    def _claim(
        self, name: str, test: str, expected: Expectation, run: Callable[[], Iterator[tuple[Any, Any]]]
    ) -> Claim:
        return Claim(Case("fork", name, "-", test), expected, run)

    def _after_a_child(self, x: torch.Tensor) -> torch.Tensor:
        """A child that dies of the device does not harm the parent's."""
        try:
            in_child(lambda: (x + 1).tolist())
        except RuntimeError:
            return x + 1
        raise Different("the child could use the device")

    def _spawned(self, method: str) -> Iterator[tuple[Any, Any]]:
        """A process of its own has a device of its own."""
        script = SPAWNED.format(mac=f"M1 8GB, torch {self.mac.torch}", method=method)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "script.py"  # which the child imports
            path.write_text(script)
            done = run_python(path, timeout=120)
        yield done.stdout.strip(), str(([2.0, 2.0], False))


CORPUS = Fork
