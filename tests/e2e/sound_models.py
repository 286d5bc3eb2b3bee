"""Small models for sound, text and classes with random weights, saved with a real processor as a checkpoint is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers

from patcher.verify import text
from tests.e2e.text import SENTENCES
from tests.e2e.vision_models import DECODER, PLACES, VOCABULARY, tokenizer

BANDS, FRAMES = 16, 100
"""Of the spectrum of one second."""
SOUND = {"<|AUDIO|>": "audio_token", "<|audio_bos|>": "audio_bos_token", "<|audio_eos|>": "audio_eos_token"}
SPECIAL = ["endoftext", "startoftranscript", "en", "transcribe", "translate", "startoflm", "startofprev"]
SPECIAL = [f"<|{name}|>" for name in [*SPECIAL, "nospeech", "notimestamps"]]


def features() -> Any:
    return transformers.WhisperFeatureExtractor(feature_size=BANDS, chunk_length=1)


def whisper() -> tuple[Any, Any]:
    """Whisper for sounds of one second, with one language and both tasks."""
    bpe = json.loads(text.tokenizer(SENTENCES, VOCABULARY)._tokenizer.to_str())["model"]
    merges = [tuple(pair) for pair in bpe["merges"]]
    fast = transformers.WhisperTokenizer(vocab=bpe["vocab"], merges=merges)
    fast.add_special_tokens({"additional_special_tokens": SPECIAL})
    fast.add_special_tokens({"pad_token": "<|endoftext|>"})
    number = dict(zip(SPECIAL, fast.convert_tokens_to_ids(SPECIAL), strict=True))
    ends = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), number["<|endoftext|>"])
    start = number["<|startoftranscript|>"]
    config = transformers.WhisperConfig(
        vocab_size=PLACES,
        num_mel_bins=BANDS,
        d_model=64,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        max_source_positions=FRAMES // 2,
        max_target_positions=64,
        init_std=0.08,
        decoder_start_token_id=start,
        **ends,
    )
    model = transformers.WhisperForConditionalGeneration(config)
    model.generation_config = transformers.GenerationConfig(
        is_multilingual=True,
        lang_to_id={"<|en|>": number["<|en|>"]},
        task_to_id={"transcribe": number["<|transcribe|>"], "translate": number["<|translate|>"]},
        no_timestamps_token_id=number["<|notimestamps|>"],
        decoder_start_token_id=start,
        max_length=64,
        suppress_tokens=[],
        **ends,
    )
    return model, transformers.WhisperProcessor(features(), fast)


def qwen2_audio() -> tuple[Any, Any]:
    """Qwen2-Audio: Whisper's encoder in front of a language model; text and sound in one conversation."""
    special = {place: token for token, place in SOUND.items()}
    fast = tokenizer("", list(SOUND), **special)
    config = transformers.Qwen2AudioConfig(
        audio_config={
            "num_mel_bins": BANDS,
            "encoder_layers": 2,
            "encoder_attention_heads": 4,
            "encoder_ffn_dim": 128,
            "d_model": 64,
            "max_source_positions": FRAMES // 2,
            "initializer_range": 0.08,
        },
        text_config={**DECODER, "model_type": "qwen2"},
        audio_token_index=fast.convert_tokens_to_ids("<|AUDIO|>"),
    )
    template = fast.chat_template.replace(
        "{% elif c['type'] == 'text' %}",
        "{% elif c['type'] == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>{% elif c['type'] == 'text' %}",
    )
    processor = transformers.Qwen2AudioProcessor(features(), fast, chat_template=template)
    return transformers.Qwen2AudioForConditionalGeneration(config), processor


def llama() -> tuple[Any, Any]:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**DECODER)), tokenizer("", [])


def modernbert() -> tuple[Any, Any]:
    """ModernBERT, which Unsloth's notebook for classification fine-tunes: local and global attention in turn."""
    config = transformers.ModernBertConfig(
        vocab_size=PLACES,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=128,
        local_attention=16,
        initializer_range=0.08,
        pad_token_id=2,
        bos_token_id=0,
        eos_token_id=1,
        cls_token_id=0,
        sep_token_id=1,
        num_labels=4,
    )
    return transformers.ModernBertForSequenceClassification(config), tokenizer("", [])


MODELS = {"whisper": whisper, "qwen2-audio": qwen2_audio, "llama": llama, "modernbert": modernbert}


def save(name: str, folder: Path) -> Path:
    """Writes the model with weights of seed 0 in fp32, and its processor; gives the folder."""
    torch.manual_seed(0)
    model, processor = MODELS[name]()
    target = folder / name
    model.save_pretrained(target)
    processor.save_pretrained(target)
    return target
