"""Whether a model's weights fit into the memory that torch may use on this Mac's GPU, and what would fit.

Exact bytes against the exact limit: a model is refused only where loading it must fail. Imports no torch: everything is
asked of the model, which is on the meta device.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from patcher import environment
from patcher.errors import ModelDoesNotFit, compose
from patcher.macs.mac import CHIPS, GIB, recommended_max_bytes
from patcher.macs.machine import Machine

BLOCK = 64
"""Weights that share a scale in 4 bit: bitsandbytes' default, which transformers does not change."""
NESTED_BLOCK = 256
"""Scales that share a scale of theirs under double quantization."""
TABLE_4BIT, TABLE_8BIT = 16 * 4, 256 * 4
"""Bytes of the tables of codes that each quantized weight keeps, in fp32."""


@dataclass(frozen=True)
class Limit:
    """What torch may take on the GPU.

    Attributes:
        ratio: the hard limit as a multiple of ``recommended``; 0 for none.
        recommended: ``torch.mps.recommended_max_memory()``, in bytes.
        taken: bytes that live tensors hold already.
    """

    ratio: float
    recommended: int
    taken: int

    @property
    def free(self) -> int | None:
        """Bytes that further weights may take; None where there is no limit."""
        return max(int(self.ratio * self.recommended) - self.taken, 0) if self.ratio else None


@dataclass(frozen=True)
class Need:
    """What a model takes on the GPU.

    Attributes:
        weights: bytes of its parameters and buffers there, scales and tables of quantized ones included.
        parameters: their number.
        dtype: of most of them, as text; ``"4 bit"`` or ``"8 bit"`` where they are quantized.
        half: bytes if every floating weight had 16 bit; None where they have, or are quantized.
        nf4: bytes with ``load_in_4bit=True`` and double quantization, as Unsloth loads; None where they are quantized.
    """

    weights: int
    parameters: int
    dtype: str
    half: int | None = None
    nf4: int | None = None


def check(name: str, need: Need, limit: Limit, machine: Machine) -> None:
    """Raises ModelDoesNotFit where the weights alone are more than the limit leaves."""
    if limit.free is None or need.weights <= limit.free or not environment.check_fit():
        return
    taken = f", and tensors hold {_gib(limit.taken)} of it already" if limit.taken else ""
    raise ModelDoesNotFit(
        compose(
            "this model does not fit into the memory of this Mac's GPU",
            target=name,
            expected=f"at most {_gib(limit.free)}: torch may take {limit.ratio:g} times the {_gib(limit.recommended)} "
            f"that Metal recommends on {machine} ({environment.HIGH}){taken}",
            found=f"its weights take {_gib(need.weights)} ({need.parameters:,} parameters in {need.dtype}); "
            "activations and the key-value cache come on top, and full fine-tuning with AdamW takes four times that",
            left="no weights were read",
            run="; or ".join(_alternatives(need, limit, machine)),
        )
    )


def _alternatives(need: Need, limit: Limit, machine: Machine) -> Iterator[str]:
    """What would fit, the nearest first; and the switch."""
    free = limit.free or 0
    ways = (
        ("pass dtype=torch.bfloat16, with which they take {}", need.half),
        ("pass load_in_4bit=True, with which they take {}", need.nf4),
    )
    fitting = [text.format(_gib(size)) for text, size in ways if size is not None and size <= free]
    smallest = min((size for _, size in ways if size is not None), default=None)
    yield from fitting
    if not fitting and smallest is not None:
        yield f"take a smaller model: even with load_in_4bit=True this one takes {_gib(smallest)}"
    else:
        most = int(free / (need.weights / need.parameters))
        yield f"take a model with at most {most / 1e9:.3g} billion parameters in {need.dtype}"
    mac = smallest_mac(need.weights + limit.taken, limit.ratio, machine.macos)
    yield f"use a Mac with at least {mac} GB" if mac else "no Mac is large enough for this one"
    yield "set PATCHER_CHECK_FIT=0 to let torch try"


def smallest_mac(size: int, ratio: float, macos: tuple[int, int] | None) -> int | None:
    """The smallest memory of a Mac, in GB, whose limit is at least ``size`` bytes; None where no Mac has it."""
    sold = {memory for chip in CHIPS.values() for variant in chip.variants for memory in variant.memory_gb}
    return next((gb for gb in sorted(sold) if size <= ratio * recommended_max_bytes(gb * GIB, macos)), None)


# -- what a model takes --------------------------------------------------------------------------------------------


def need_of(model: Any, quantizer: Any, placed: Mapping[str, Any], linear: frozenset[str]) -> Need:
    """What a model on the meta device takes on the GPU once it is loaded.

    Args:
        model: of transformers; its parameters have the shapes and dtypes that they will have.
        quantizer: transformers' quantizer, or None.
        placed: device by name of a parameter or buffer; only those on ``"mps"`` count.
        linear: names of the weights that ``load_in_4bit=True`` would quantize.
    """
    tensors = [(name, tensor) for name, tensor in _tensors(model) if placed.get(name, "mps") == "mps"]
    method = _method(quantizer)
    sizes = [(name, tensor, _bytes(model, quantizer, method, name, tensor)) for name, tensor in tensors]
    dtypes: dict[str, int] = {}
    for _, tensor, size in sizes:
        label = str(tensor.dtype).removeprefix("torch.")
        dtypes[label] = dtypes.get(label, 0) + size
    main = max(dtypes, key=dtypes.__getitem__, default="")
    weights = sum(size for *_, size in sizes)
    dense = quantizer is None
    half = sum(_half(tensor) for _, tensor in tensors)
    nf4 = sum(nf4_bytes(tensor.numel(), nested=True) if name in linear else _half(tensor) for name, tensor in tensors)
    return Need(
        weights=weights,
        parameters=sum(tensor.numel() for _, tensor in tensors),
        dtype={"4bit": "4 bit", "8bit": "8 bit"}.get(method, main),
        half=half if dense and half < weights else None,
        nf4=nf4 if dense and linear else None,
    )


def knows(quantizer: Any) -> bool:
    """Whether the sizes are exact: dense weights, and those that bitsandbytes quantizes."""
    return quantizer is None or bool(_method(quantizer))


def nf4_bytes(numel: int, nested: bool = False) -> int:
    """Bytes of a weight in NF4 or FP4: two codes in a byte, a scale for each block, the table of codes."""
    blocks = -(-numel // BLOCK)
    if not nested:
        return -(-numel // 2) + blocks * 4 + TABLE_4BIT
    return -(-numel // 2) + blocks + -(-blocks // NESTED_BLOCK) * 4 + 4 + TABLE_4BIT + TABLE_8BIT


def _tensors(model: Any) -> Iterator[tuple[str, Any]]:
    """Parameters and buffers, each once: tied ones are one tensor after loading."""
    tied = set(getattr(model, "all_tied_weights_keys", {}))
    yield from ((name, tensor) for name, tensor in _named(model) if name not in tied)


def _named(model: Any) -> Iterable[tuple[str, Any]]:
    return [*model.named_parameters(), *model.named_buffers()]


def _method(quantizer: Any) -> str:
    """``"4bit"`` or ``"8bit"`` for bitsandbytes, else an empty text."""
    config = getattr(quantizer, "quantization_config", None)
    for bits in ("4bit", "8bit"):
        if getattr(config, f"load_in_{bits}", False):
            return bits
    return ""


def _bytes(model: Any, quantizer: Any, method: str, name: str, tensor: Any) -> int:
    if quantizer is None:
        return int(tensor.numel() * tensor.element_size())
    if method == "4bit" and quantizer.param_needs_quantization(model, name):
        return nf4_bytes(tensor.numel(), bool(quantizer.quantization_config.bnb_4bit_use_double_quant))
    if method == "8bit" and quantizer.param_needs_quantization(model, name):
        return int(tensor.numel() + tensor.shape[0] * 4)  # a scale in fp32 for each row
    return int(tensor.numel() * quantizer.param_element_size(model, name, tensor))


def _half(tensor: Any) -> int:
    """Bytes of a tensor where floating ones have 16 bit."""
    return int(
        tensor.numel() * (min(tensor.element_size(), 2) if tensor.is_floating_point() else tensor.element_size())
    )


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB / 10 else f"{size / 2**20:.1f} MiB"
