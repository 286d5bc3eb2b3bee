"""Metal variants on generated shapes, strides, types and options: ``python -m tests.ops.metal.generated CASES``.

Prints how many cases of each op agreed with the torch variant on the CPU; the first that does not ends it.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from patcher.ops.trials import gated_linear_unit as gated
from patcher.ops.trials import qk_norm_rope as normed
from patcher.ops.variants import trial
from patcher.ops.variants.tolerance import difference
from patcher.simulator import startup

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
Case = tuple[dict[str, Tensor], Callable[[Any, trial.Tensors], dict[str, Tensor]], int, float]


class Draw:
    """Draws one case after the other, from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.normal = trial.numbers(seed)
        self.dtype, self.other = self.pick(*DTYPES), self.pick(*DTYPES)

    def pick(self, *values: Any) -> Any:
        return self.random.choice(values)

    def size(self, most: int) -> int:
        """Small ones, and powers of two and their neighbours, more often than others."""
        near = (1 << self.random.randrange(1, most.bit_length())) + self.random.randrange(-1, 2)
        return max(2, self.pick(min(near, most), self.random.randint(2, most), self.random.randint(2, 9)))

    def rows(self, rows: int, columns: int, dtype: torch.dtype, scale: float = 1.0) -> Tensor:
        """Rows side by side or apart, from any offset."""
        made = (self.normal(rows, columns) * scale).to(dtype)
        return self.pick(made, trial.strided(made, gap=self.pick(0, 1, 5), offset=self.pick(0, 1, 7)))

    def weight(self, columns: int) -> Tensor:
        """Near 1, or far from it, in the type of rows or in fp32."""
        return (self.normal(columns) * self.pick(0.1, 1.0) + 1).to(self.pick(self.dtype, torch.float32))


def rms_norm(draw: Draw) -> Case:
    rows, columns = draw.size(40), draw.size(1500)
    names = ("x", "grad", "residual")
    tensors = {name: draw.rows(rows, columns, draw.dtype, draw.pick(1e-3, 1.0, 30.0)) for name in names}
    tensors["weight"] = draw.weight(columns)
    eps, offset, add = draw.pick(1e-5, 1e-6), draw.pick(True, False), draw.pick(True, False)

    def run(ops: Any, t: trial.Tensors) -> dict[str, Tensor]:
        y, rstd = ops.rms_norm(t["x"], t["weight"], eps, unit_offset=offset)
        dx, how = trial.copied(t["grad"]), {"unit_offset": offset, "needs_grad_weight": True}
        dw = ops.rms_norm_backward(dx, t["x"], t["weight"], rstd, grad_input=dx, **how)
        x, residual = trial.copied(t["x"]), trial.copied(t["residual"])
        ops.add_rms_norm_(x, residual, t["weight"], eps, add=add)
        return {"y": y, "rstd": rstd, "dx": dx, "dw": dw, "x": trial.whole(x), "residual": trial.whole(residual)}

    return tensors, run, max(rows, columns), 3


def layer_norm(draw: Draw) -> Case:
    rows, columns = draw.size(40), draw.size(1500)
    tensors = {name: draw.rows(rows, columns, draw.dtype, draw.pick(1e-2, 1.0, 30.0)) for name in ("x", "grad")}
    tensors |= {name: draw.weight(columns) for name in ("weight", "bias")}
    mask, biased = (True, draw.pick(True, False), draw.pick(True, False)), draw.pick(True, False)

    def run(ops: Any, t: trial.Tensors) -> dict[str, Tensor]:
        y, mean, rstd = ops.layer_norm(t["x"], t["weight"], t["bias"] if biased else None, 1e-5)
        gradients = ops.layer_norm_backward(t["grad"], t["x"], t["weight"], mean, rstd, mask)
        made = {"y": y, "rstd": rstd, **dict(zip(("dx", "dw", "db"), gradients, strict=True))}
        return {name: each for name, each in made.items() if each is not None}

    return tensors, run, max(rows, columns), 2


def gated_linear_unit(draw: Draw) -> Case:
    rows, columns = draw.size(30), draw.size(700)
    tensors = {name: draw.rows(rows, columns, draw.dtype, draw.pick(0.1, 1.0, 4.0)) for name in ("grad", "e", "g")}
    activation, slope = draw.pick(*gated.ACTIVATIONS.values())

    def run(ops: Any, t: trial.Tensors) -> dict[str, Tensor]:
        made = [trial.copied(t[each]) for each in ("grad", "e", "g")]
        ops.gated_backward_(*made, slope)
        again = ops.gated_backward(t["grad"], t["e"], t["g"], slope)
        named = {f"{number}": trial.whole(each) for number, each in enumerate(made)}
        named |= {f"new {number}": each for number, each in enumerate(again)}
        return {"h": ops.gated(t["e"], t["g"], activation), **named}

    return tensors, run, 1, 3


def rotary(draw: Draw) -> tuple[dict[str, Tensor], Tensor | None, int]:
    """Heads of queries and keys, gradients of both, tables and positions."""
    head = 2 * draw.size(80)
    shape = (draw.pick(1, 2, 3), draw.size(12), draw.size(12), draw.pick(1, 2, 5), head)
    tensors = normed._tensors(shape, draw.dtype, draw.pick(draw.dtype, torch.float32))
    return tensors, draw.pick(None, tensors["positions"].to(draw.pick(torch.int32, torch.int64))), head


def rope(draw: Draw) -> Case:
    tensors, positions, _ = rotary(draw)
    how = {"transpose": draw.pick(True, False), "in_table_dtype": draw.pick(True, False)}

    def run(ops: Any, t: trial.Tensors) -> dict[str, Tensor]:
        q, k = (trial.copied(t[name]).transpose(1, 2) for name in ("q", "k"))
        at = None if positions is None else positions.to(q.device)
        ops.rope_pair_(q, k, t["cos"], t["sin"], q_out=q, k_out=k, positions=at, **how)
        return {"q": trial.whole(q), "k": trial.whole(k)}

    return tensors, run, 2, 2


def qk_norm_rope(draw: Draw) -> Case:
    tensors, positions, head = rotary(draw)

    def run(ops: Any, t: trial.Tensors) -> dict[str, Tensor]:
        return normed._pair(ops, t, None if positions is None else positions.to(t["q"].device), "")

    return tensors, run, head, 4


def cross_entropy(draw: Draw) -> Case:
    rows, vocabulary = draw.size(12), draw.size(3000)
    labels = torch.tensor([draw.pick(-100, draw.random.randrange(vocabulary)) for _ in range(rows)])
    tensors = {"logits": draw.rows(rows, vocabulary, draw.dtype, 3.0), "grad": draw.normal(rows), "labels": labels}
    softcap, scale = draw.pick(0.0, 8.0, 30.0), draw.pick(0.0, 0.25, 1.5)

    def run(ops: Any, t: trial.Tensors) -> dict[str, Tensor]:
        losses, log_z = ops.cross_entropy(t["logits"], t["labels"], softcap, scale)
        dx = ops.cross_entropy_backward(t["grad"], t["logits"], t["labels"], losses, log_z, softcap, scale)
        return {"losses": losses, "log_z": log_z, "dx": dx}

    return tensors, run, vocabulary, 1


OPS = (rms_norm, layer_norm, gated_linear_unit, rope, qk_norm_rope, cross_entropy)


def main(cases: int) -> None:
    """Runs so many of each op."""
    startup.start("M3 Max 36GB")
    for make in OPS:
        op = make.__name__
        for seed in range(cases):
            tensors, run, length, steps = make(Draw(seed))
            right = run(trial.functions("torch", op), {name: trial.copied(each) for name, each in tensors.items()})
            found = run(trial.functions("metal", op), trial.on_mps(tensors))
            for name, expected in right.items():
                exponent = 2 * float(tensors["logits"].abs().max()) if op == "cross_entropy" else 0
                told = difference(found[name].cpu(), expected, length=length, steps=steps, exponent=exponent)
                assert not told, f"{op}, case {seed}: {name}: {told}"
        print(op, cases, flush=True)


if __name__ == "__main__":
    os.environ.setdefault("PATCHER_TRITON_CACHE", "0")
    main(int(sys.argv[1]))
