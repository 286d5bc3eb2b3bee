"""Small vision models with random weights, saved with a real processor as a user's checkpoint is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from patcher.verify import text
from tests.e2e.text import SENTENCES

VOCABULARY = 512
PLACES = VOCABULARY + 8
"""Rows of the embedding: the tokenizer's tokens and those that stand for pictures."""
DECODER: dict[str, Any] = {
    "vocab_size": PLACES,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
    "initializer_range": 0.08,
}
ENCODER: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
    "initializer_range": 0.08,
}
QWEN_TOKENS = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
QWEN_PICTURE = "<|vision_start|><|image_pad|><|vision_end|>"
PIXELS = {"shortest_edge": 32 * 32, "longest_edge": 96 * 96}

TEMPLATE = (
    "{{% for m in messages %}}<|begin|>{{{{ m['role'] }}}}: "
    "{{% if m['content'] is string %}}{{{{ m['content'] }}}}{{% else %}}"
    "{{% for c in m['content'] %}}{{% if c['type'] == 'image' %}}{picture}"
    "{{% elif c['type'] == 'text' %}}{{{{ c['text'] }}}}{{% endif %}}{{% endfor %}}{{% endif %}}<|end|>\n"
    "{{% endfor %}}{{% if add_generation_prompt %}}<|begin|>assistant: {{% endif %}}"
)


def tokenizer(picture: str, extra: list[str], **special: str) -> Any:
    """The test sentences' tokenizer with the tokens that stand for pictures, and a chat template that writes them."""
    fast = text.tokenizer(SENTENCES, VOCABULARY)
    fast.add_special_tokens({"additional_special_tokens": extra})
    if special:
        fast = type(fast)(
            tokenizer_object=fast._tokenizer,
            bos_token=fast.bos_token,
            eos_token=fast.eos_token,
            pad_token=fast.pad_token,
            extra_special_tokens=special,
        )
    fast.chat_template = TEMPLATE.format(picture=picture)
    return fast


def qwen(kind: str) -> tuple[Any, Any]:
    """Qwen2-VL, Qwen2.5-VL or Qwen3-VL: pictures of any size, in patches, four of which make a token."""
    fast = tokenizer(QWEN_PICTURE, QWEN_TOKENS)
    numbers = fast.convert_tokens_to_ids(QWEN_TOKENS)
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    three = kind == "Qwen3VL"
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
    decoder = {**DECODER, "rope_parameters": {**rope, "mrope_interleaved": True} if three else rope}
    vision: dict[str, dict[str, Any]] = {
        "Qwen2VL": {"depth": 2, "embed_dim": 64, "hidden_size": 64, "num_heads": 4, "mlp_ratio": 2},
        "Qwen2_5_VL": {"depth": 2, "hidden_size": 64, "out_hidden_size": 64, "intermediate_size": 128, "num_heads": 4},
        "Qwen3VL": {
            "depth": 2,
            "hidden_size": 64,
            "out_hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 4,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
        },
    }
    encoder = {**vision[kind], "patch_size": 8, "initializer_range": 0.08}
    if kind == "Qwen2_5_VL":
        encoder |= {"window_size": 32, "fullatt_block_indexes": [1]}
    if three:
        decoder["head_dim"] = 16
    config = getattr(transformers, f"{kind}Config")(
        text_config=decoder, vision_config=encoder, **dict(zip(names, numbers, strict=True))
    )
    processor = getattr(transformers, "Qwen3VLProcessor" if three else f"{kind}Processor")(
        image_processor=transformers.Qwen2VLImageProcessor(patch_size=8, size=PIXELS),
        video_processor=(transformers.Qwen3VLVideoProcessor if three else transformers.Qwen2VLVideoProcessor)(
            patch_size=8, size=PIXELS
        ),
        tokenizer=fast,
        chat_template=fast.chat_template,
    )
    return getattr(transformers, f"{kind}ForConditionalGeneration")(config), processor


def llava(kind: str) -> tuple[Any, Any]:
    """LLaVA over CLIP and Llama; LLaVA-NeXT looks at tiles of the picture too."""
    fast = tokenizer("<image>", ["<image>"])
    config: dict[str, Any] = {
        "text_config": {**DECODER, "model_type": "llama"},
        "vision_config": {**ENCODER, "model_type": "clip_vision_model", "projection_dim": 32},
        "image_token_index": fast.convert_tokens_to_ids("<image>"),
        "vision_feature_layer": -2,
    }
    images: dict[str, Any] = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    if kind == "LlavaNext":
        pinpoints = [[32, 64], [64, 32], [64, 64]]
        config["image_grid_pinpoints"] = images["image_grid_pinpoints"] = pinpoints
        images = transformers.LlavaNextImageProcessor(**images)
    else:
        images = transformers.CLIPImageProcessor(**images)
    processor = getattr(transformers, f"{kind}Processor")(
        image_processor=images,
        tokenizer=fast,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=fast.chat_template,
    )
    model = getattr(transformers, f"{kind}ForConditionalGeneration")
    return model(getattr(transformers, f"{kind}Config")(**config)), processor


def gemma3(_: str) -> tuple[Any, Any]:
    """Gemma 3 over SigLIP: four tokens for each picture, which see each other; sliding windows."""
    special = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    fast = tokenizer("<start_of_image>", list(special.values()), **special)
    config = transformers.Gemma3Config(
        text_config={
            **DECODER,
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "sliding_window": 16,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        vision_config={**ENCODER, "vision_use_head": False},
        mm_tokens_per_image=4,
        boi_token_index=fast.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=fast.convert_tokens_to_ids("<end_of_image>"),
        image_token_index=fast.convert_tokens_to_ids("<image_soft_token>"),
    )
    processor = transformers.Gemma3Processor(
        image_processor=transformers.Gemma3ImageProcessor(size={"height": 32, "width": 32}),
        tokenizer=fast,
        image_seq_length=4,
        chat_template=fast.chat_template,
    )
    model = transformers.Gemma3ForConditionalGeneration(config)
    # Its initial value is zero: no picture would be seen.
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=0.08)
    return model, processor


def mllama(_: str) -> tuple[Any, Any]:
    """Llama 3.2 Vision: the second layer of the text looks at the picture by cross attention."""
    fast = tokenizer("<|image|>", ["<|image|>", "<|python_tag|>"])
    config = transformers.MllamaConfig(
        text_config={**DECODER, "num_hidden_layers": 3, "cross_attention_layers": [1], "vocab_size": VOCABULARY},
        vision_config={
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_global_layers": 1,
            "attention_heads": 4,
            "image_size": 32,
            "patch_size": 8,
            "intermediate_layers_indices": [0, 1],
            "vision_output_dim": 192,
            "max_num_tiles": 2,
            "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]],
            "initializer_range": 0.08,
        },
        image_token_index=fast.convert_tokens_to_ids("<|image|>"),
    )
    processor = transformers.MllamaProcessor(
        image_processor=transformers.MllamaImageProcessor(size={"height": 32, "width": 32}, max_image_tiles=2),
        tokenizer=fast,
        chat_template=fast.chat_template,
    )
    model = transformers.MllamaForConditionalGeneration(config)
    for name, parameter in model.named_parameters():
        if name.endswith(("gate", "gate_attn", "gate_ffn", "attn_gate", "mlp_gate")):
            torch.nn.init.constant_(parameter, 0.5)  # at 0, where pretraining starts, pictures would not be seen
    return model, processor


MODELS: dict[str, tuple[Any, str]] = {
    "qwen2-vl": (qwen, "Qwen2VL"),
    "qwen2.5-vl": (qwen, "Qwen2_5_VL"),
    "qwen3-vl": (qwen, "Qwen3VL"),
    "llava": (llava, "Llava"),
    "llava-next": (llava, "LlavaNext"),
    "gemma3": (gemma3, ""),
    "mllama": (mllama, ""),
}


def save(name: str, folder: Path) -> Path:
    """Writes the model with weights of seed 0 in fp32, and its processor; gives the folder."""
    make, kind = MODELS[name]
    torch.manual_seed(0)
    model, processor = make(kind)
    target = folder / name
    model.save_pretrained(target)
    processor.save_pretrained(target)
    return target
