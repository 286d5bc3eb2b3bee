"""The distillation trainers of TRL, made as a user's script makes them; imported after `patch_for_mac()`.

Completions are sampled with ``top_k=1``: the most likely token, so that every device continues alike.
"""

from __future__ import annotations

import inspect
from typing import Any

from datasets import Dataset
from trl import DistillationConfig, DistillationTrainer
from trl.experimental.gkd import GKDConfig, GKDTrainer
from trl.experimental.gold import GOLDConfig, GOLDTrainer
from trl.experimental.iw_opd import IWOPDConfig, IWOPDTrainer
from trl.experimental.sdft import SDFTConfig, SDFTTrainer
from trl.experimental.sdpo import SDPOConfig, SDPOTrainer
from trl.experimental.ssd import SSDConfig, SSDTrainer

from tests.e2e.trainers_data import PAD, pairs
from tests.e2e.trainers_setup import COMMON, sixteenths

STEPS, BATCH = 5, 2
TURNS = "{% for m in messages %}{% if m['role'] == 'user' %}{{ bos_token }}{% endif %}{{ m['content'] }}{% endfor %}"
ARGUMENTS: dict[str, Any] = {**COMMON, "max_steps": STEPS, "per_device_train_batch_size": BATCH, "seed": 3407}
ONLINE: dict[str, Any] = {"max_completion_length": 6, "generation_kwargs": {"suppress_tokens": [PAD]}, "top_k": 1}


def prompts() -> Dataset:
    """The beginnings of sentences."""
    return Dataset.from_dict({"prompt": pairs()["prompt"][: BATCH * STEPS]})


def chats() -> Dataset:
    """The same as turns, with their ends as answers."""
    table = pairs()
    rows = zip(table["prompt"][: BATCH * STEPS], table["chosen"], strict=False)
    turns = [[{"role": "user", "content": p}, {"role": "assistant", "content": c}] for p, c in rows]
    return Dataset.from_dict({"messages": turns})


def arguments_for(config: Any, out: str, **more: Any) -> Any:
    """A configuration; each shuffles, or not, under another name."""
    known = inspect.signature(config).parameters
    order = {"shuffle_dataset": False} if "shuffle_dataset" in known else {"train_sampling_strategy": "sequential"}
    return config(output_dir=out, **{**ARGUMENTS, **order, **more})


def distillation(model: Any, teacher: Any, tokenizer: Any, out: str, beta: float = 0.5) -> Any:
    """On the student's own completions, generalized Jensen-Shannon divergence."""
    arguments = arguments_for(DistillationConfig, out, beta=beta, **ONLINE)
    return DistillationTrainer(
        model=model, teacher_model=teacher, args=arguments, train_dataset=prompts(), processing_class=tokenizer
    )


def distillation_forward(model: Any, teacher: Any, tokenizer: Any, out: str) -> Any:
    """Forward KL."""
    return distillation(model, teacher, tokenizer, out, beta=0.0)


def distillation_reverse(model: Any, teacher: Any, tokenizer: Any, out: str) -> Any:
    """Reverse KL."""
    return distillation(model, teacher, tokenizer, out, beta=1.0)


def gkd(model: Any, teacher: Any, tokenizer: Any, out: str, lmbda: float = 0.0) -> Any:
    """Generalized knowledge distillation on the answers of the data set."""
    tokenizer.chat_template = TURNS
    arguments = arguments_for(GKDConfig, out, lmbda=lmbda, beta=0.5, max_new_tokens=6, max_length=64)
    trainer = GKDTrainer(
        model=model, teacher_model=teacher, args=arguments, train_dataset=chats(), processing_class=tokenizer
    )
    trainer.generation_config.top_k = trainer.generation_kwargs["top_k"] = 1
    return trainer


def gkd_online(model: Any, teacher: Any, tokenizer: Any, out: str) -> Any:
    """Likewise, on the student's own."""
    return gkd(model, teacher, tokenizer, out, lmbda=1.0)


def gold(model: Any, teacher: Any, tokenizer: Any, out: str, **kind: Any) -> Any:
    """GOLD between models with one tokenizer."""
    tokenizer.chat_template = TURNS
    arguments = arguments_for(
        GOLDConfig, out, lmbda=0.0, beta=0.5, temperature=1.0, max_completion_length=6, max_length=64, **kind
    )
    return GOLDTrainer(
        model=model, teacher_model=teacher, args=arguments, train_dataset=chats(), processing_class=tokenizer
    )


def gold_universal(model: Any, teacher: Any, tokenizer: Any, out: str) -> Any:
    """Between tokenizers: universal logit distillation of sorted probabilities."""
    return gold(
        model, teacher, tokenizer, out, use_uld_loss=True, teacher_tokenizer_name_or_path=tokenizer.name_or_path
    )


def iw_opd(model: Any, teacher: Any, tokenizer: Any, out: str) -> Any:
    """Importance-weighted, on the student's own completions."""
    tokenizer.chat_template = TURNS
    arguments = arguments_for(IWOPDConfig, out, max_completion_length=6, max_length=64, top_k=1, top_p=1.0)
    return IWOPDTrainer(
        model=model, teacher_model=teacher, args=arguments, train_dataset=chats(), processing_class=tokenizer
    )


def sdft(model: Any, teacher: Any, tokenizer: Any, out: str) -> Any:
    """The model with a demonstration in its prompt teaches the model without."""
    data = prompts().add_column("privileged_context", pairs()["chosen"][: BATCH * STEPS])
    arguments = arguments_for(SDFTConfig, out, num_generations=1, distillation_topk=20, **ONLINE)
    return SDFTTrainer(model=model, args=arguments, train_dataset=data, processing_class=tokenizer)


def sdpo(model: Any, teacher: Any, tokenizer: Any, out: str) -> Any:
    """The model with its own best answer in the prompt teaches the model without."""
    data = prompts().add_column("privileged_context", pairs()["chosen"][: BATCH * STEPS])
    arguments = arguments_for(SDPOConfig, out, num_generations=2, include_environment_feedback=True, **ONLINE)
    return SDPOTrainer(
        model=model, args=arguments, train_dataset=data, processing_class=tokenizer, reward_funcs=[sixteenths]
    )


def ssd(model: Any, teacher: Any, tokenizer: Any, out: str) -> Any:
    """Cross entropy of the model's own completions."""
    arguments = arguments_for(SSDConfig, out, **ONLINE)
    return SSDTrainer(model=model, args=arguments, train_dataset=prompts(), processing_class=tokenizer)
