"""Plants in torch the fault that each probe of ``verify_apple.py`` looks for, and writes how the probe ended.

Run by the tests, in a process of its own: ``python -m tests.verify_faults FOLDER`` writes ``FOLDER/outcomes.json``.
"""

from __future__ import annotations

import contextlib
import functools
import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from patcher import machine, patch_for_mac

patch_for_mac(simulate="1", strict=False)

import torch  # noqa: E402
from torch.nn import functional  # noqa: E402

from patcher.verify import device, hazards, training  # noqa: E402
from patcher.verify.check import Situation  # noqa: E402

attention, linear, layer_norm = functional.scaled_dot_product_attention, functional.linear, functional.layer_norm
argmax, to, checkpoint = torch.argmax, torch.Tensor.to, hazards.checkpoint


def on_mps(x: torch.Tensor) -> bool:
    return x.device.type == "mps"


def off_by_a_percent(right: Any) -> Any:
    return lambda a, *rest, **named: right(a, *rest, **named) * (1.01 if on_mps(a) else 1)


def reads_past_the_end(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.matmul(a, b) * (float("nan") if on_mps(a) and a.shape[-1] > 32766 else 1)


def leaks(q: Any, k: Any, v: Any, is_causal: bool = False) -> torch.Tensor:
    return attention(q, k, v)


def ignores_strides(q: Any, k: Any, v: Any, is_causal: bool = False) -> torch.Tensor:
    if on_mps(q) and not q.is_contiguous():
        q = q.contiguous().view(q.shape[0], q.shape[2], q.shape[1], -1).transpose(1, 2)
    return attention(q, k, v, is_causal=is_causal)


def reads_late(self: Any, *rest: Any, non_blocking: bool = False, **named: Any) -> torch.Tensor:
    return to(self, *rest, **named) + (1 if non_blocking else 0)


def forgets_the_weight(x: Any, shape: Any, weight: Any, bias: Any) -> torch.Tensor:
    return layer_norm(x, shape, weight.detach(), bias)


def doubles_the_gradient(x: Any, w: Any, b: Any = None) -> torch.Tensor:
    return linear(x, w * (2 if on_mps(x) and w.requires_grad else 1), b)


def picks_another(x: Any, *rest: Any, **named: Any) -> torch.Tensor:
    return argmax(-x if on_mps(x) else x, *rest, **named)


class Inert(contextlib.nullcontext[None]):
    """An autocast that does nothing."""

    def __init__(self, *rest: Any, **named: Any) -> None:
        super().__init__()


FAULTS: dict[str, tuple[Any, str, Any]] = {
    "available": (torch.backends.mps, "is_available", lambda: False),
    "matmul": (torch.Tensor, "__matmul__", off_by_a_percent(torch.matmul)),
    "float64 refused": (torch, "ones", lambda *rest, **named: torch.zeros(1)),
    "bf16": (torch, "autocast", Inert),
    "random numbers": (torch.mps, "set_rng_state", lambda state: None),
    "memory": (torch.mps, "current_allocated_memory", lambda: 0),
    "sums over 32767 elements": (torch.Tensor, "__matmul__", reads_past_the_end),
    "dW over 32767 tokens": (functional, "linear", doubles_the_gradient),
    "causal attention": (functional, "scaled_dot_product_attention", leaks),
    "strided attention": (functional, "scaled_dot_product_attention", ignores_strides),
    "checkpointed dropout": (hazards, "checkpoint", functools.partial(checkpoint, preserve_rng_state=False)),
    "non-blocking copy": (torch.Tensor, "to", reads_late),
    "layer_norm gradients": (functional, "layer_norm", forgets_the_weight),
    "small linear layers": (functional, "linear", off_by_a_percent(linear)),
    "linear on 65536 rows": (functional, "linear", off_by_a_percent(linear)),
    "autocast('cuda')": (torch, "autocast", Inert),
    "convolution on 65536 rows": (functional, "conv1d", off_by_a_percent(functional.conv1d)),
    "transposed bf16 weight": (functional, "linear", lambda x, w: linear(x, w) * 1.1),
    "fine-tuning in fp32": (functional, "silu", off_by_a_percent(functional.silu)),
    "greedy": (torch, "argmax", picks_another),
}


def main() -> None:
    folder = Path(sys.argv[1])
    here = Situation(machine.detect("1"), False, folder)
    outcomes = {}
    for check in (*device.CHECKS, *hazards.CHECKS, *training.CHECKS):
        if check.name in FAULTS:
            holder, name, fault = FAULTS[check.name]
            with mock.patch.object(holder, name, fault):
                result = check.run(here)
            outcomes[check.name] = (result.status.value, result.detail)
    assert outcomes.keys() == FAULTS.keys()
    (folder / "outcomes.json").write_text(json.dumps(outcomes))
    print(json.dumps(outcomes, indent=1), file=sys.stderr)


if __name__ == "__main__":
    main()
