"""What is done with a family's model: forward and backward, one step of LoRA, greedy generation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from patcher.bench.family import Batch, Family, to

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import Module

LORA_RANK = 4
LEARNING_RATE = 1e-3
NEW_TOKENS = 8
_ADAPTER_SEED = 1


@dataclass(frozen=True)
class Observation:
    """What one run of a family gave, on the CPU in fp32.

    Attributes:
        losses: of the model; of the model with its adapters, before and after one step.
        output: the logits, or the embeddings of a model that compares two things.
        gradients: of every weight that has one, by its name.
        adapter_gradients: of every adapter tensor, before the step.
        adapters: every adapter tensor after the step.
        tokens: what was generated, one list for each row; empty if the family does not generate.
    """

    losses: tuple[float, float, float]
    output: Tensor
    gradients: dict[str, Tensor]
    adapter_gradients: dict[str, Tensor]
    adapters: dict[str, Tensor]
    tokens: list[list[int]]


def observe(family: Family, device: str, dtype: torch.dtype, rows: int = 2) -> Observation:
    """Runs a family once on a device, all weights and inputs in ``dtype``; dropout is off."""
    model = family.build().to(device, family.weights(dtype))
    batch = to(family.batch(rows), device, family.weights(dtype))
    with family.precision(device, dtype):
        found = model(**batch)
    found.loss.backward()
    gradients = {name: _copy(p.grad) for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    tokens = generate(family, model, batch)
    adapted = with_adapters(family, model)
    adapter = [(name, p) for name, p in adapted.named_parameters() if p.requires_grad]
    optimizer = optimizer_for(adapted)
    with family.precision(device, dtype):
        before = adapted(**batch).loss
    before.backward()
    adapter_gradients = {name: _copy(p.grad) for name, p in adapter}
    optimizer.step()
    with family.precision(device, dtype):
        after = adapted(**batch).loss
    return Observation(
        losses=(found.loss.item(), before.item(), after.item()),
        output=_copy(_output(found)),
        gradients=gradients,
        adapter_gradients=adapter_gradients,
        adapters={name: _copy(p) for name, p in adapter},
        tokens=tokens,
    )


def with_adapters(family: Family, model: Module) -> Module:
    """The model with LoRA adapters that are not zero at the start, so that every one of them gets a gradient."""
    import torch
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=LORA_RANK, lora_alpha=2 * LORA_RANK, target_modules=list(family.lora))
    adapted: Module = get_peft_model(model, config)
    generator = torch.Generator().manual_seed(_ADAPTER_SEED)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return adapted.eval()


def optimizer_for(model: Module) -> torch.optim.Optimizer:
    """AdamW over what is trained."""
    import torch

    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=LEARNING_RATE)


def generate(family: Family, model: Any, batch: Batch, new_tokens: int = NEW_TOKENS) -> list[list[int]]:
    """The tokens of greedy generation from the batch's inputs, exactly ``new_tokens`` of them in each row."""
    if not family.generates:
        return []
    inputs = {key: batch[key] for key in family.generates}
    found = model.generate(**inputs, max_new_tokens=new_tokens, min_new_tokens=new_tokens, do_sample=False)
    tokens: list[list[int]] = found.tolist()
    return tokens


def _output(found: Any) -> Tensor:
    """The logits, or the embeddings of pictures, films or sounds and of texts."""
    import torch

    if "logits" in found:
        logits: Tensor = found["logits"]
        return logits
    return torch.cat([value.flatten() for key, value in found.items() if key.endswith("_embeds")])


def _copy(tensor: Any) -> Tensor:
    import torch

    copied: Tensor = tensor.detach().to("cpu", torch.float32, copy=True)
    return copied
