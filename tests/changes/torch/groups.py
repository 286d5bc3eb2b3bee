"""Process groups on a simulated Mac; ``python -m tests.changes.torch.groups FILE`` writes down what came of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from patcher import patch_for_mac

handle = patch_for_mac(simulate="M1 8GB")

import torch  # noqa: E402
from torch import distributed  # noqa: E402
from torch.nn.parallel import DistributedDataParallel  # noqa: E402

FOLDER = Path(sys.argv[1]).parent


def tried(call: Callable[[], Any]) -> Any:
    """What came out of it, as JSON has it, or the type of the error and its message."""
    try:
        found = call()
    except Exception as error:  # noqa: BLE001 - what is raised is what is looked at
        return f"{type(error).__name__}: {error}"
    return found.tolist() if isinstance(found, torch.Tensor) else found


def collective(name: str, *others: Any) -> list[float]:
    x = torch.tensor([1.0, 2.0], device="cuda")
    getattr(distributed, name)(x, *others)
    return x.tolist()


def gathered() -> list[float]:
    found = torch.zeros(2, device="cuda")
    distributed.all_gather_into_tensor(found, torch.tensor([1.0, 2.0], device="cuda"))
    return found.tolist()


def listed() -> list[list[float]]:
    """What the collectives over lists give, with and without waiting."""
    x, one = torch.tensor([1.0, 2.0], device="cuda"), torch.zeros(2, device="cuda")
    gathered_later, gathered_at, scattered = [one.clone()], [one.clone()], one.clone()
    distributed.all_gather(gathered_later, x, async_op=True).wait()
    distributed.gather(x, gathered_at, dst=0)
    distributed.scatter(scattered, [x], src=0)
    assert scattered.is_mps
    return [gathered_later[0].tolist(), gathered_at[0].tolist(), scattered.tolist()]


def wrapped(device: str) -> list[float]:
    net = torch.nn.Linear(2, 1, bias=False).to(device)
    DistributedDataParallel(net)(torch.ones(1, 2, device=device)).sum().backward()
    return net.weight.grad[0].tolist()


def main() -> None:
    alone: dict[str, Any] = {"rank": 0, "world_size": 1, "init_method": f"file://{FOLDER}/group"}
    found: dict[str, Any] = {"nccl": tried(lambda: distributed.init_process_group("nccl", **alone))}
    distributed.init_process_group(**alone, device_id=torch.device("cuda", 0))
    found |= {
        "backend": distributed.get_backend(),
        "all_reduce": tried(lambda: collective("all_reduce")),
        "average": tried(lambda: collective("all_reduce", distributed.ReduceOp.AVG)),
        "broadcast": tried(lambda: collective("broadcast", 0)),
        "all_gather_into_tensor": tried(gathered),
        "over lists": tried(listed),
        "barrier": tried(distributed.barrier),
        "on the CPU": tried(lambda: wrapped("cpu")),
        "on mps": tried(lambda: wrapped("cuda")),
    }
    with mock.patch.object(distributed, "get_world_size", lambda *_: 2):
        found["among several"] = tried(lambda: collective("all_reduce"))
        found["a list among several"] = tried(lambda: distributed.all_gather([torch.ones(1).cuda()], torch.ones(1)))
        found["the CPU's among several"] = tried(lambda: distributed.all_reduce(torch.ones(1)))
    distributed.destroy_process_group()
    handle.undo()
    distributed.init_process_group(**{**alone, "init_method": f"file://{FOLDER}/after"})
    found["undone"] = tried(lambda: wrapped("cpu"))
    Path(sys.argv[1]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
