"""The same on the CPU, without patches and Unsloth, with the release's transformers and PEFT. Run by the command:

    python -m tests.versions.reference SPEC.json

SPEC as for `tests.versions.exercise`, whose results it reads; writes ``compared.json``: for each run the distances from
the plain formulas, with ``alone`` from what the same release of TRL gave on the CPU, or what went wrong.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from tests.e2e.models import save
from tests.e2e.trainers_data import RATE
from tests.e2e.trainers_formulas import LOSSES, Batch, trained_losses
from tests.e2e.trainers_policy import advantages, aligned, log_probs
from tests.e2e.trainers_reference import (
    compute_as_on_a_gpu,
    loaded,
    prepare,
    with_adapter,
    with_start_values,
)
from tests.versions.plan import LOGGED, PROMPTS, TOKENS, exact


def models(folder: Path) -> None:
    """Writes what is trained."""
    folder.mkdir()
    prepare(folder)
    save("gemma2", folder)


def start(folder: Path, kind: str, precision: str) -> Any:
    """The model that a run started from, in fp32 arithmetic."""
    model = loaded(folder, kind, "nf4" if precision.startswith("nf4") else "float32")[0]
    compute_as_on_a_gpu(model)
    return with_start_values(folder, kind, with_adapter(model, kind))


def is_apart(batch: Batch) -> bool:
    """Whether a batch is one of an older TRL, whose DPO compares an adapter with its base; newer one with a copy."""
    return "prompt_input_ids" in batch


def concatenated(batch: Batch) -> Batch:
    """A batch of pairs as newer TRL has it: chosen rows, then rejected ones; in older one prompts lie apart."""
    if not is_apart(batch):
        return batch
    ids, masks, ends = [], [], []
    for side in ("chosen", "rejected"):
        parts = (batch[f"{name}_{part}"] for name in ("prompt", side) for part in ("input_ids", "attention_mask"))
        for prompt, prompt_mask, end, end_mask in zip(*parts, strict=True):
            prompt, end = prompt[prompt_mask.bool()], end[end_mask.bool()]
            ids.append(torch.cat([prompt, end]))
            masks.append(torch.ones_like(ids[-1]))
            ends.append(torch.cat([torch.zeros_like(prompt), torch.ones_like(end)]))
    rows = {"input_ids": ids, "attention_mask": masks, "completion_mask": ends}
    return {name: pad_sequence(value, batch_first=True) for name, value in rows.items()}


def supervised(folder: Path, kind: str, precision: str, result: dict[str, Any]) -> dict[str, float]:
    """Losses against the formula, and the first gradients in fp32."""
    formula = "sft" if kind.startswith("sft") else kind
    if is_apart(result["batches"][0]):
        formula = "dpo_peft_config"
    batches = [concatenated(batch) for batch in result["batches"]]
    expected = trained_losses(formula, start(folder, kind, precision), batches, RATE)
    found = {"loss": furthest_loss(result["losses"], expected)}
    if formula == "sft" and precision == "float32":
        model = start(folder, kind, precision)
        LOSSES[formula](model, batches[0]).backward()
        wanted = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        found["gradient"] = distance(result["gradients"], wanted)
    return found


def beside(alone: dict[str, Any], precision: str, result: dict[str, Any]) -> dict[str, float]:
    """Losses, and the first gradients in fp32, against those of a run on the CPU in fp32."""
    if "failed" in alone:
        raise SystemExit(f"on the CPU: {alone['failed']}")
    found = {"loss": furthest_loss(result["losses"], alone["losses"])}
    if precision == "float32":
        found["gradient"] = distance(result["gradients"], alone["gradients"])
    return found


def furthest_loss(ours: list[float], theirs: list[float]) -> float:
    """The largest relative difference, without what rounding of logged losses explains."""
    logged = LOGGED * sum(all(loss == round(loss, 4) for loss in losses) for losses in (ours, theirs))
    return max(max(0.0, abs(a - b) - logged) / abs(b) for a, b in zip(ours, theirs, strict=True))


def distance(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Of all gradients together, relative."""
    left, right = (torch.cat([some[name].flatten() for name in sorted(theirs)]) for some in (ours, theirs))
    return float((left - right).norm() / right.norm())


def policy(folder: Path, kind: str, result: dict[str, Any]) -> dict[str, float]:
    """Log-probabilities of the reference policy and advantages of what was sampled first; the reward at the end."""
    model, scored = start(folder, kind, "float32"), result["scored"]
    found = {"reward": sum(result["rewards"][-4:]) / 4}
    with torch.no_grad():
        now = log_probs(model, scored)
        with model.disable_adapter():
            base = log_probs(model, scored)
    found["advantage"] = float((scored["advantages"] - advantages(scored, "grpo", torch.zeros(len(now)))).abs().max())
    if "ref_per_token_logps" in scored:
        rows = aligned(scored)
        found["log_prob"] = min(furthest(rows, one) for one in (now, base))
    return found


def furthest(rows: list[Tensor], expected: list[Tensor]) -> float:
    """The largest difference of a log-probability."""
    return max(float((row[: len(one)] - one).abs().max()) for row, one in zip(rows, expected, strict=True))


def reloaded(folder: Path, out: Path, kind: str, result: dict[str, Any]) -> dict[str, Any]:
    """What PEFT and transformers make of the files: the tokens, and the merged model beside base and adapter."""
    base, tokenizer = loaded(folder, kind, "float32")
    model = PeftModel.from_pretrained(base, out / "adapter").eval()
    how = base.config._attn_implementation
    merged = type(base).from_pretrained(out / "merged", dtype=torch.float32, attn_implementation=how).eval()
    tokens, off = [], 0.0
    for prompt in PROMPTS:
        inputs = tokenizer(prompt, return_tensors="pt")
        with torch.no_grad():
            whole = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)
            expected, found = model(**inputs).logits, merged(**inputs).logits
        tokens.append(whole[0, inputs["input_ids"].shape[1] :].tolist())
        off = max(off, float((found - expected).norm() / expected.norm()))
    return {"tokens": tokens == result["tokens"], "merged": off}


def compared(folder: Path, out: Path, alone: Path | None, kind: str, precision: str) -> dict[str, Any]:
    """One run; ``alone`` is the folder of TRL's own on the CPU."""
    result = torch.load(out / f"{kind}-{precision}.pt", weights_only=False)
    if "failed" in result:
        return {"failed": result["failed"]}
    found: dict[str, Any] = {"device": result["device"], "class": result["class"], "layers": result["layers"]}
    if kind == "grpo_even":
        return found | policy(folder, kind, result)
    if alone is None:
        found |= supervised(folder, kind, precision, result)
    else:
        found |= beside(torch.load(alone / f"{kind}-{exact(precision)}.pt"), precision, result)
    if "tokens" in result:
        found |= reloaded(folder, out / f"{kind}-{precision}.trainer", kind, result)
    return found


if __name__ == "__main__":
    if sys.argv[1] == "--models":
        models(Path(sys.argv[2]))
        sys.exit()
    spec = json.loads(Path(sys.argv[1]).read_text())
    folder, out = Path(spec["folder"]), Path(spec["out"])
    alone = Path(spec["alone"]) if "alone" in spec else None
    done = {"-".join(run): compared(folder, out, alone, *run) for run in spec["runs"]}
    (out / "compared.json").write_text(json.dumps(done))
