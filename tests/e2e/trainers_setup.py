"""The trainers under test, made as a user's script makes them; imported after `patch_for_mac()` (and after unsloth)."""

from __future__ import annotations

from typing import Any

from datasets import Dataset
from transformers import (
    DataCollatorForLanguageModeling,
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainingArguments,
)
from trl import (
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    KTOConfig,
    KTOTrainer,
    RewardConfig,
    RewardTrainer,
    RLOOConfig,
    RLOOTrainer,
    SFTConfig,
    SFTTrainer,
)

from tests.e2e.text import rows
from tests.e2e.trainers_data import BATCH, GROUP, KL, PAD, RATE, STEPS, chats, pairs
from tests.e2e.trainers_reference import adapter_config

COMMON: dict[str, Any] = {
    "per_device_train_batch_size": BATCH,
    "gradient_accumulation_steps": 1,
    "max_steps": STEPS,
    "learning_rate": RATE,
    "lr_scheduler_type": "constant",
    "warmup_steps": 0,
    "max_grad_norm": 0.0,
    "weight_decay": 0.0,
    "logging_steps": 1,
    "optim": "adamw_torch",
    "bf16": False,
    "fp16": False,
    "report_to": "none",
    "save_strategy": "no",
    "disable_tqdm": True,
}
IN_ORDER: dict[str, Any] = {**COMMON}
if hasattr(TrainingArguments, "train_sampling_strategy"):  # transformers before 5.5 samples at random
    IN_ORDER["train_sampling_strategy"] = "sequential"
ASSISTANT_TEMPLATE = (
    "{% for m in messages %}{{ bos_token }}{{ m['role'] }}: "
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}{{ eos_token }}{% endgeneration %}"
    "{% else %}{{ m['content'] }}\n{% endif %}{% endfor %}"
)


def kto(model: Any, tokenizer: Any, out: str, **more: Any) -> KTOTrainer:
    """Right and wrong ends in turn, two of each in a batch."""
    table = pairs()
    unpaired = {
        "prompt": [prompt for prompt in table["prompt"] for _ in range(2)],
        "completion": [end for both in zip(table["chosen"], table["rejected"], strict=True) for end in both],
        "label": [True, False] * len(table["prompt"]),
    }
    arguments = KTOConfig(output_dir=out, beta=0.5, **{**IN_ORDER, **more, "per_device_train_batch_size": 2 * BATCH})
    return KTOTrainer(
        model=model, args=arguments, train_dataset=Dataset.from_dict(unpaired), processing_class=tokenizer
    )


def dpo(model: Any, tokenizer: Any, out: str, **more: Any) -> DPOTrainer:
    """Against a copy of the adapter."""
    arguments = DPOConfig(output_dir=out, beta=0.5, max_length=64, **{**IN_ORDER, **more})
    return DPOTrainer(model=model, args=arguments, train_dataset=Dataset.from_dict(pairs()), processing_class=tokenizer)


def dpo_peft_config(model: Any, tokenizer: Any, out: str, **more: Any) -> DPOTrainer:
    """The trainer makes the adapter; the reference is the model without it."""
    arguments = DPOConfig(output_dir=out, beta=0.5, max_length=64, **{**IN_ORDER, **more})
    data = Dataset.from_dict(pairs())
    return DPOTrainer(
        model=model, args=arguments, train_dataset=data, processing_class=tokenizer, peft_config=adapter_config("dpo")
    )


def orpo(model: Any, tokenizer: Any, out: str, **more: Any) -> Trainer:
    """Without a reference model."""
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    arguments = ORPOConfig(output_dir=out, beta=0.5, max_length=64, **{**IN_ORDER, **more})
    return ORPOTrainer(
        model=model, args=arguments, train_dataset=Dataset.from_dict(pairs()), processing_class=tokenizer
    )


def cpo(model: Any, tokenizer: Any, out: str, **more: Any) -> Trainer:
    """CPO as Xu et al. have it: sigmoid and the likelihood of what was chosen."""
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    arguments = CPOConfig(output_dir=out, beta=0.5, max_length=64, **{**IN_ORDER, **more})
    return CPOTrainer(model=model, args=arguments, train_dataset=Dataset.from_dict(pairs()), processing_class=tokenizer)


def simpo(model: Any, tokenizer: Any, out: str, **more: Any) -> Trainer:
    """SimPO, as TRL offers it: CPO's trainer with another loss and without the likelihood."""
    return cpo(model, tokenizer, out, loss_type="simpo", cpo_alpha=0.0, simpo_gamma=0.5, **more)


def reward(model: Any, tokenizer: Any, out: str, **more: Any) -> RewardTrainer:
    """A model with one output per text."""
    arguments = RewardConfig(output_dir=out, max_length=64, **{**IN_ORDER, **more})
    data = Dataset.from_dict(pairs())
    return RewardTrainer(model=model, args=arguments, train_dataset=data, processing_class=tokenizer)


def texts() -> list[str]:
    """Up to three sentences each, with their end."""
    return [f"{row}<|end|>" for row in rows(BATCH * STEPS, 3)]


def sft(model: Any, tokenizer: Any, out: str, data: dict[str, Any] | None = None, **more: Any) -> SFTTrainer:
    """SFT on any kind of data set; plain texts where none is given."""
    data = data or {"text": texts()}
    arguments = SFTConfig(output_dir=out, **{"max_length": 128, **IN_ORDER, **more})
    return SFTTrainer(model=model, args=arguments, train_dataset=Dataset.from_dict(data), processing_class=tokenizer)


def sft_gemma2(model: Any, tokenizer: Any, out: str, **more: Any) -> SFTTrainer:
    """The same with a Gemma 2."""
    return sft(model, tokenizer, out, **more)


def sft_peft_config(model: Any, tokenizer: Any, out: str, **more: Any) -> SFTTrainer:
    """The trainer makes the adapter."""
    arguments = SFTConfig(output_dir=out, max_length=128, **{**IN_ORDER, **more})
    data = Dataset.from_dict({"text": texts()})
    return SFTTrainer(
        model=model, args=arguments, train_dataset=data, processing_class=tokenizer, peft_config=adapter_config("sft")
    )


def sft_padding_free(model: Any, tokenizer: Any, out: str, **more: Any) -> SFTTrainer:
    """One row for the texts of a batch, which TRL does not cut."""
    return sft(model, tokenizer, out, padding_free=True, max_length=None, **more)


def trainer(model: Any, tokenizer: Any, out: str, **more: Any) -> Trainer:
    """transformers' own, on the same texts."""
    data = Dataset.from_dict({"input_ids": tokenizer(texts())["input_ids"]})
    return Trainer(
        model=model,
        args=TrainingArguments(output_dir=out, **{**IN_ORDER, **more}),
        train_dataset=data,
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
        processing_class=tokenizer,
    )


def sft_packing(model: Any, tokenizer: Any, out: str, **more: Any) -> SFTTrainer:
    """Several texts in one row."""
    return sft(
        model,
        tokenizer,
        out,
        {"text": [f"{row}<|end|>" for row in rows(10 * BATCH * STEPS, 3)]},
        packing=True,
        max_length=96,
        **more,
    )


def sft_completion(model: Any, tokenizer: Any, out: str, **more: Any) -> SFTTrainer:
    """The loss is that of the completions."""
    table = pairs()
    data = {"prompt": table["prompt"], "completion": table["chosen"]}
    return sft(model, tokenizer, out, data, completion_only_loss=True, **more)


def sft_assistant(model: Any, tokenizer: Any, out: str, **more: Any) -> SFTTrainer:
    """The loss is that of what the assistant says."""
    tokenizer.chat_template = ASSISTANT_TEMPLATE
    return sft(model, tokenizer, out, {"messages": chats()}, assistant_only_loss=True, **more)


def sft_responses(model: Any, tokenizer: Any, out: str, **more: Any) -> SFTTrainer:
    """Unsloth's own way to the same: it looks for the markers of the turns."""
    from unsloth.chat_templates import train_on_responses_only

    conversations = [tokenizer.apply_chat_template(chat, tokenize=False) for chat in chats()]
    trainer = sft(model, tokenizer, out, {"text": conversations}, **more)
    return train_on_responses_only(
        trainer, instruction_part="<|begin|>user:", response_part="<|begin|>assistant:", tokenizer=tokenizer
    )


def sixteenths(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """The toy task: the share of tokens whose number is divisible by 16."""
    return [sum(token % 16 == 0 for token in ids) / len(ids) for ids in completion_ids]


def _online(out: str, **more: Any) -> dict[str, Any]:
    return {
        "output_dir": out,
        **COMMON,
        "max_steps": 24,
        "learning_rate": 5e-3,
        "per_device_train_batch_size": 32,
        "num_generations": GROUP,
        "max_completion_length": 8,
        "temperature": 1.0,
        # A random model would sample the padding token, by which Unsloth finds the padding.
        "generation_kwargs": {"suppress_tokens": [PAD]},
        "beta": KL,
        "seed": 3407,
        **more,
    }


ONLINE = ("grpo", "grpo_even", "rloo")
"""The kinds that sample while they train."""


def grpo_even(model: Any, tokenizer: Any, out: str, **more: Any) -> GRPOTrainer:
    """GRPO on prompts of as many tokens each: the metrics of Unsloth before March 2026 fail with others."""
    prompts = pairs()["prompt"]
    lengths = [len(ids) for ids in tokenizer(prompts)["input_ids"]]
    usual = max(set(lengths), key=lengths.count)
    even = [prompt for prompt, length in zip(prompts, lengths, strict=True) if length == usual]
    return grpo(model, tokenizer, out, even, **more)


def grpo(model: Any, tokenizer: Any, out: str, prompts: list[str] | None = None, **more: Any) -> GRPOTrainer:
    """Two prompts with 16 completions of 8 tokens each at every step."""
    data = Dataset.from_dict({"prompt": prompts or pairs()["prompt"]})
    arguments = GRPOConfig(**_online(out, loss_type="grpo", **more))
    return GRPOTrainer(
        model=model, args=arguments, train_dataset=data, processing_class=tokenizer, reward_funcs=[sixteenths]
    )


def rloo(model: Any, tokenizer: Any, out: str, **more: Any) -> RLOOTrainer:
    """Likewise."""
    data = Dataset.from_dict({"prompt": pairs()["prompt"]})
    arguments = RLOOConfig(**_online(out, **more))
    return RLOOTrainer(
        model=model, args=arguments, train_dataset=data, processing_class=tokenizer, reward_funcs=[sixteenths]
    )


def seq2seq(model: Any, tokenizer: Any, out: str, **more: Any) -> Seq2SeqTrainer:
    """T5 learns the ends of sentences; evaluation generates."""
    table = pairs()
    data = Dataset.from_dict(
        {"input_ids": tokenizer(table["prompt"])["input_ids"], "labels": tokenizer(table["chosen"])["input_ids"]}
    )
    arguments = Seq2SeqTrainingArguments(
        output_dir=out,
        predict_with_generate=True,
        generation_max_length=12,
        generation_num_beams=1,
        **{**IN_ORDER, **more},
    )
    return Seq2SeqTrainer(
        model=model,
        args=arguments,
        train_dataset=data,
        eval_dataset=data.select(range(4)),
        data_collator=DataCollatorForSeq2Seq(tokenizer, model=model),
        processing_class=tokenizer,
    )
