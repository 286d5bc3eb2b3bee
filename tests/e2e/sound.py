"""Fine-tunes Whisper, Qwen2-Audio, Llama and a classifier through FastModel in a process of its own, as notebooks do.

    python -m tests.e2e.sound SPEC.json

SPEC is as for `vision`; the model's name says what is done with it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

SPEC: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
if SPEC["stack"] == "unsloth":
    from patcher import patch_for_mac

    patch_for_mac(simulate="M3 Max 36GB")
    import unsloth  # noqa: F401

# isort: split
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    Qwen2AudioForConditionalGeneration,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainingArguments,
    WhisperForConditionalGeneration,
)

from tests.e2e import fast_models, sound_models
from tests.e2e.media import RATE, sound
from tests.e2e.text import rows

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
CLASSES: dict[str, Any] = {
    "whisper": WhisperForConditionalGeneration,
    "qwen2-audio": Qwen2AudioForConditionalGeneration,
    "llama": AutoModelForCausalLM,
    "modernbert": AutoModelForSequenceClassification,
}
ROWS = 24


def loaded(run: dict[str, Any], **settings: Any) -> tuple[Any, Any]:
    """The model and its processor."""
    from unsloth import FastModel

    dtype, quantized = fast_models.PRECISIONS[run["precision"]]
    return FastModel.from_pretrained(
        f"{SPEC['models']}/{run['model']}", dtype=dtype, load_in_4bit=quantized, max_seq_length=256, **settings
    )


def adapted(run: dict[str, Any], model: Any, modules: list[str], **settings: Any) -> Any:
    """The model with LoRA."""
    from unsloth import FastModel

    model = FastModel.get_peft_model(
        model,
        target_modules=modules,
        **fast_models.LORA,
        bias="none",
        use_gradient_checkpointing="unsloth" if run["checkpointing"] else False,
        random_state=3407,
        use_rslora=False,
        loftq_config=None,
        **settings,
    )
    # Else it trains fp32 weights under bf16 autocast, as on CUDA.
    model._unsloth_forced_float32 = run["precision"] != "bfloat16"
    return model


def asked(found: dict[str, Any], model: Any, inputs: Any, **settings: Any) -> dict[str, Any]:
    """What the trained model answers, with the question for the reference."""
    from unsloth import FastModel

    FastModel.for_inference(model)
    question = {name: value.cpu() for name, value in inputs.items()}
    found |= {"question": question, "generation": settings}
    return {**found, "tokens": fast_models.greedy(model, inputs, **settings)}


class SpeechCollator:
    """The notebook's: spectra as they are, labels padded with -100, without the token that the model adds."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, features: list[dict[str, Any]]) -> Any:
        batch = self.processor.feature_extractor.pad(
            [{"input_features": row["input_features"]} for row in features], return_tensors="pt"
        )
        labels = self.processor.tokenizer.pad([{"input_ids": row["labels"]} for row in features], return_tensors="pt")
        padded = labels["input_ids"].masked_fill(labels.attention_mask.ne(1), -100)
        if (padded[:, 0] == self.processor.tokenizer.bos_token_id).all():
            padded = padded[:, 1:]
        batch["labels"] = padded
        return batch


def whisper(run: dict[str, Any]) -> dict[str, Any]:
    """Unsloth's notebook for Whisper: FastModel with auto_model, Seq2SeqTrainer, generation from a waveform."""
    model, processor = loaded(
        run, auto_model=WhisperForConditionalGeneration, whisper_language="English", whisper_task="transcribe"
    )
    model = adapted(run, model, ["q_proj", "v_proj"], task_type=None)
    model.generation_config.language = "<|en|>"
    model.generation_config.task = "transcribe"
    model.config.suppress_tokens = []
    model.generation_config.forced_decoder_ids = None
    found = fast_models.before(model)

    def row(index: int) -> dict[str, Any]:
        wave, words = sound(index)
        features = processor.feature_extractor(wave, sampling_rate=RATE)
        return {"input_features": features.input_features[0], "labels": processor.tokenizer(words).input_ids}

    trainer = Seq2SeqTrainer(
        model=model,
        train_dataset=[row(index) for index in range(ROWS)],
        data_collator=SpeechCollator(processor),
        processing_class=processor.feature_extractor,
        args=Seq2SeqTrainingArguments(
            per_device_train_batch_size=2,
            output_dir=f"{SPEC['out']}/trainer",
            label_names=["labels"],
            bf16=run["bf16"],
            **fast_models.COMMON,
        ),
    )
    found |= fast_models.trained(trainer)
    inputs = processor.feature_extractor(sound(3)[0], sampling_rate=RATE, return_tensors="pt").to("cuda")
    return asked(found, model, inputs, language="en", task="transcribe")


def qwen2_audio(run: dict[str, Any]) -> dict[str, Any]:
    """Chats about sounds, with Unsloth's collator and SFTTrainer."""
    from trl import SFTConfig, SFTTrainer
    from unsloth.trainer import UnslothVisionDataCollator

    model, processor = loaded(run)
    model = adapted(run, model, [*ATTENTION, "out_proj", "gate_proj", "up_proj", "down_proj", "fc1", "fc2"])
    found = fast_models.before(model)

    def chat(index: int) -> list[dict[str, Any]]:
        wave, words = sound(index)
        question = [{"type": "audio", "audio": wave}, {"type": "text", "text": "A patient reader describes"}]
        answer = [{"type": "text", "text": words}]
        return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]

    trainer = SFTTrainer(
        model=model,
        processing_class=processor,
        data_collator=UnslothVisionDataCollator(model, processor),
        train_dataset=[{"messages": chat(index)} for index in range(ROWS)],
        args=SFTConfig(
            per_device_train_batch_size=2,
            output_dir=f"{SPEC['out']}/trainer",
            dataset_text_field="",
            dataset_kwargs={"skip_prepare_dataset": True},
            max_length=256,
            bf16=run["bf16"],
            **fast_models.COMMON,
        ),
    )
    found |= fast_models.trained(trainer)
    text = processor.apply_chat_template(chat(3)[:1], add_generation_prompt=True, tokenize=False)
    inputs = processor(text=[text], audio=[sound(3)[0]], sampling_rate=RATE, return_tensors="pt").to("cuda")
    return asked(found, model, inputs)


def llama(run: dict[str, Any]) -> dict[str, Any]:
    """A model for text through FastModel instead of FastLanguageModel."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    model, tokenizer = loaded(run)
    model = adapted(run, model, [*ATTENTION, "gate_proj", "up_proj", "down_proj"])
    found = fast_models.before(model)
    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"text": rows(ROWS, 4)}),
        args=SFTConfig(
            per_device_train_batch_size=2,
            output_dir=f"{SPEC['out']}/trainer",
            max_length=128,
            packing=False,
            padding_free=False,
            bf16=run["bf16"],
            **fast_models.COMMON,
        ),
    )
    found |= fast_models.trained(trainer)
    return asked(found, model, tokenizer("The old engineer", return_tensors="pt").to("cuda"))


def modernbert(run: dict[str, Any]) -> dict[str, Any]:
    """Unsloth's notebook for classification: all weights of a ModernBERT with a new head."""
    model, tokenizer = loaded(run, auto_model=AutoModelForSequenceClassification, num_labels=4, full_finetuning=True)
    model._unsloth_forced_float32 = run["precision"] == "float32"
    tokenizer.padding_side = "right"  # FastModel leaves it on the left, where ModernBERT's classifier looks
    found = {**fast_models.before(model), "question": None}
    data = [
        {**tokenizer(text, truncation=True, max_length=64), "labels": index % 4}
        for index, text in enumerate(rows(ROWS, 3))
    ]
    trainer = Trainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=data,
        data_collator=DataCollatorWithPadding(tokenizer),
        args=TrainingArguments(
            per_device_train_batch_size=2,
            output_dir=f"{SPEC['out']}/trainer",
            bf16=run["bf16"],
            **fast_models.COMMON,
        ),
    )
    return {**found, **fast_models.trained(trainer), "tokens": None}


KINDS = {"whisper": whisper, "qwen2-audio": qwen2_audio, "llama": llama, "modernbert": modernbert}


def with_unsloth(run: dict[str, Any]) -> dict[str, Any]:
    return KINDS[run["model"]](run)


def with_peft(run: dict[str, Any]) -> dict[str, Any]:
    return fast_models.reference(SPEC, run, CLASSES[run["model"]])


if __name__ == "__main__":
    fast_models.run_all(SPEC, sound_models.save, with_unsloth if SPEC["stack"] == "unsloth" else with_peft)
