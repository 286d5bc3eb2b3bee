"""Every op of `patcher.ops` on the device, forward and backward, against its formula in fp64 on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from patcher.verify import kernel_formulas as formulas
from patcher.verify import kernel_runs as runs
from patcher.verify.check import MPS, Check, Situation
from patcher.verify.compare import assert_close, distance, tolerance

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Kernel:
    """One op and its formula.

    Attributes:
        name: what the line says.
        op: the file in ``patcher/ops``.
        shapes: of the inputs, drawn from a normal distribution.
        run: the op's forward and backward, from inputs on the device.
        formula: the forward in plain torch, from the same inputs in fp64; the gradients come from autograd.
        gradients: inputs that get a gradient, in the order in which ``run`` gives them after the outputs.
        outputs: number of outputs.
        length: of the longest sum.
        roundings: to a 16-bit dtype on the way.
        given: integer inputs.
        long: whether it runs in fp32 only, because of its size.
    """

    name: str
    op: str
    shapes: Mapping[str, tuple[int, ...]]
    run: Callable[[Tensors, Tensors], list[Tensor]]
    formula: Callable[[Tensors], list[Tensor]]
    gradients: tuple[str, ...]
    length: int
    outputs: int = 1
    roundings: float = 3
    given: Mapping[str, Tensor] | None = None
    long: bool = False

    def compare(self, dtype: torch.dtype) -> str:
        """Runs the op on the device in ``dtype`` and compares; says how far the worst result is off."""
        generator = torch.Generator().manual_seed(0)
        inputs = {name: _draw(name, shape, generator).to(dtype) for name, shape in self.shapes.items()}
        given = dict(self.given or {})
        exact, grads = self._exact(inputs, given, generator, dtype)
        on_device = {name: tensor.to("mps") for name, tensor in {**inputs, **given}.items()}
        found = self.run(on_device, {name: tensor.to("mps") for name, tensor in grads.items()})
        names = [*(f"output {i}" for i in range(self.outputs)), *(f"gradient of {name}" for name in self.gradients)]
        allowed = tolerance(dtype, length=self.length, roundings=self.roundings)
        trios = zip(names, found, exact, strict=True)
        return distance([assert_close(f"{dtype} {name}", a.cpu(), b, allowed) for name, a, b in trios], allowed)

    def _exact(
        self, inputs: Tensors, given: Tensors, generator: torch.Generator, dtype: torch.dtype
    ) -> tuple[list[Tensor], Tensors]:
        """Outputs and gradients of the formula, and the output gradients that were used, by output number."""
        wide = {name: tensor.double().requires_grad_(name in self.gradients) for name, tensor in inputs.items()}
        outputs = self.formula({**wide, **given})
        grads = [torch.randn(output.shape, generator=generator).to(dtype) for output in outputs]
        wanted = [wide[name] for name in self.gradients]
        flowing = [output for output in outputs if output.requires_grad]
        used = [grad.double() for output, grad in zip(outputs, grads, strict=True) if output.requires_grad]
        gradients = torch.autograd.grad(flowing, wanted, used) if wanted else ()
        exact = [output.detach() for output in outputs] + list(gradients)
        return exact, {str(number): grad for number, grad in enumerate(grads)}


def _draw(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    # Logits of order one: an error of z is one of exp(z) that is |z| times as large.
    return torch.randn(*shape, generator=generator) * (0.3 if name.endswith("weight") else 1.0)


LABELS = torch.tensor([3, -100, 49, 0, 17, -100, 8, 21, 5])
INDEX = torch.tensor([3, 0, 49, 1, 17, 2, 8, 21, 5])
POSITIONS = torch.tensor([[0, 3, 1, 2, 5, 4, 6], [6, 5, 4, 3, 2, 1, 0]])
SIZES = torch.tensor([4, 0, 9])
STARTS = torch.tensor([0, 9, 9, 10, 25], dtype=torch.int32)

_rope = {"x": (2, 3, 7, 16), "cos": (7, 8), "sin": (7, 8)}
_glu = {"e": (21, 70), "g": (21, 70)}
_head = {"hidden": (9, 16), "weight": (50, 16), "bias": (50,)}
_heads = {**_head, "teacher": (9, 24), "teacher_weight": (50, 24)}
_attention = {"q": (1, 4, 9, 16), "k": (1, 2, 9, 16), "v": (1, 2, 9, 16)}
_packed = {"q": (25, 4, 16), "k": (25, 2, 16), "v": (25, 2, 16), "sinks": (4,)}

KERNELS = (
    Kernel("RMSNorm", "rms_norm", {"x": (37, 96), "w": (96,)}, runs.rms, formulas.rms, ("x", "w"), 96),
    Kernel(
        "RMSNorm with offset",
        "rms_norm",
        {"x": (37, 96), "w": (96,)},
        partial(runs.rms, unit_offset=True),
        partial(formulas.rms, unit_offset=True),
        ("x", "w"),
        96,
    ),
    Kernel(
        "add and RMSNorm",
        "rms_norm",
        {"x": (5, 96), "residual": (5, 96), "w": (96,)},
        runs.add_rms,
        formulas.add_rms,
        (),
        96,
        outputs=2,
        roundings=4,
    ),
    Kernel(
        "LayerNorm",
        "layer_norm",
        {"x": (37, 96), "w": (96,), "b": (96,)},
        runs.layer,
        formulas.layer,
        ("x", "w", "b"),
        96,
    ),
    Kernel("RoPE", "rope", _rope, runs.rope, formulas.rope, ("x",), 2),
    Kernel("RoPE with positions", "rope", _rope, runs.rope, formulas.rope, ("x",), 2, given={"positions": POSITIONS}),
    Kernel(
        "QK norm and RoPE",
        "qk_norm_rope",
        {"x": (2, 7, 3, 16), "w": (16,), "cos": (7, 8), "sin": (7, 8)},
        runs.qk_norm_rope,
        formulas.qk_norm_rope,
        ("x",),
        16,
        roundings=6,
    ),
    Kernel("SwiGLU", "swiglu", _glu, runs.swiglu, formulas.swiglu, ("e", "g"), 1, roundings=4),
    Kernel("GEGLU", "geglu", _glu, runs.geglu, formulas.geglu, ("e", "g"), 1, roundings=4),
    Kernel("GEGLU with tanh", "geglu", _glu, runs.geglu_tanh, formulas.geglu_tanh, ("e", "g"), 1, roundings=4),
    Kernel(
        "gated unit in place",
        "gated_linear_unit",
        _glu,
        runs.swiglu_in_place,
        formulas.swiglu,
        ("e", "g"),
        1,
        roundings=4,
    ),
    Kernel(
        "cross entropy",
        "cross_entropy",
        {"logits": (9, 50)},
        runs.cross_entropy,
        formulas.cross_entropy,
        ("logits",),
        50,
        given={"labels": LABELS},
    ),
    Kernel(
        "cross entropy, softcap and scale",
        "cross_entropy",
        {"logits": (9, 50)},
        partial(runs.cross_entropy, softcap=3.0, scale=2.0),
        partial(formulas.cross_entropy, softcap=3.0, scale=2.0),
        ("logits",),
        50,
        given={"labels": LABELS},
    ),
    Kernel(
        "cross entropy, 40000 tokens",
        "cross_entropy",
        {"logits": (9, 40000)},
        runs.cross_entropy,
        formulas.cross_entropy,
        ("logits",),
        40000,
        given={"labels": LABELS},
        long=True,
    ),
    Kernel(
        "log-probability and entropy",
        "log_prob_entropy",
        {"logits": (9, 50)},
        runs.log_prob_entropy,
        formulas.log_prob_entropy,
        ("logits",),
        50,
        outputs=2,
        given={"index": INDEX},
    ),
    Kernel(
        "log-probability of a head",
        "cross_entropy_rows",
        _head,
        runs.head_log_prob,
        formulas.head_log_prob,
        ("hidden", "weight", "bias"),
        50,
        outputs=2,
        roundings=6,
        given={"index": INDEX},
    ),
    Kernel(
        "log-probability of a head, 40000 tokens",
        "bounded_tiles",
        {"hidden": (9, 16), "weight": (40000, 16), "bias": (40000,)},
        runs.head_log_prob,
        formulas.head_log_prob,
        ("hidden", "weight", "bias"),
        40000,
        outputs=2,
        given={"index": INDEX},
        long=True,
    ),
    Kernel(
        "loss of a frozen head",
        "linear_cross_entropy",
        {"hidden": (9, 16), "weight": (50, 16)},
        runs.head_loss,
        formulas.head_loss,
        ("hidden",),
        50,
        roundings=6,
        given={"labels": LABELS},
    ),
    Kernel(
        "LoRA, two projections of one input",
        "lora",
        {"x": (21, 32), "A0": (4, 32), "B0": (40, 4), "A1": (8, 32), "B1": (24, 8)},
        runs.lora,
        formulas.lora,
        ("x", "A0", "B0", "A1", "B1"),
        40,
        outputs=2,
        roundings=6,
    ),
    Kernel(
        "chunked divergence",
        "chunked_divergence",
        _heads,
        runs.chunked_divergence,
        formulas.chunked_divergence,
        ("hidden", "weight", "bias"),
        50,
        roundings=6,
    ),
    Kernel(
        "attention with softcap",
        "attention",
        _attention,
        runs.attention,
        formulas.attention,
        ("q", "k", "v"),
        16,
        roundings=4,
    ),
    Kernel(
        "attention of packed rows with sinks",
        "attention",
        _packed,
        runs.packed_attention,
        formulas.packed_attention,
        ("q", "k", "v", "sinks"),
        25,
        roundings=4,
        given={"starts": STARTS},
    ),
    Kernel(
        "grouped matmul",
        "grouped_mm",
        {"x": (13, 24), "w": (3, 10, 24)},
        runs.grouped_mm,
        formulas.grouped_mm,
        ("x", "w"),
        24,
        given={"sizes": SIZES},
    ),
)


def _check(kernel: Kernel) -> Check:
    def body(here: Situation) -> str:
        short = (torch.bfloat16, torch.float16) if here.full else (torch.bfloat16,)
        for dtype in () if kernel.long else short:
            kernel.compare(dtype)
        return kernel.compare(torch.float32)

    do = (
        f"patcher/ops/{kernel.op}.py is wrong on this machine: do not train with it; update torch and macOS, "
        "and report this line to the project"
    )
    return Check("kernels", kernel.name, body, do, needs=(MPS,))


CHECKS = tuple(_check(kernel) for kernel in KERNELS)
