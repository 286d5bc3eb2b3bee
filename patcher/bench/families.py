"""The families of models that run on the Mac's GPU, each as a small model: data."""

from __future__ import annotations

from typing import Any

from patcher.bench import batches
from patcher.bench.family import Family

DECODER: dict[str, Any] = {
    "vocab_size": batches.VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ENCODER: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
TEXT_ENCODER: dict[str, Any] = {**ENCODER, "vocab_size": batches.VOCABULARY, "max_position_embeddings": 128}
VISION: dict[str, Any] = {**ENCODER, "image_size": 32, "patch_size": 8}
WINDOW: dict[str, Any] = {"sliding_window": 8}

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
GATED = (*ATTENTION, "gate_proj", "up_proj", "down_proj")
TEXT = ("input_ids", "attention_mask")


def _decoder(name: str, stem: str, lora: tuple[str, ...] = GATED, config: str = "", **settings: Any) -> Family:
    """A language model that reads and writes text."""
    return Family(
        name=name,
        model=f"{stem}ForCausalLM",
        config=config or f"{stem}Config",
        settings={**DECODER, **settings},
        batch=batches.language,
        lora=lora,
        generates=TEXT,
    )


LANGUAGE = (
    Family("bert", "BertForMaskedLM", "BertConfig", TEXT_ENCODER, batches.language, ("query", "key", "value")),
    Family(
        "t5",
        "T5ForConditionalGeneration",
        "T5Config",
        {
            "vocab_size": batches.VOCABULARY,
            "d_model": 64,
            "d_kv": 16,
            "d_ff": 128,
            "num_layers": 2,
            "num_heads": 4,
            "decoder_start_token_id": 0,
            # As Flan-T5. A ReLU whose input is rounded to the other side of 0 changes gradients by more than rounding.
            "feed_forward_proj": "gated-gelu",
        },
        batches.translation,
        ("q", "k", "v", "o"),
        TEXT,
    ),
    _decoder("llama", "Llama"),
    _decoder("qwen2", "Qwen2"),
    _decoder("qwen3", "Qwen3", head_dim=16),
    _decoder("mistral", "Mistral", **WINDOW),
    _decoder("gemma", "Gemma", head_dim=16),
    _decoder("gemma2", "Gemma2", head_dim=16, query_pre_attn_scalar=16, **WINDOW),
    _decoder("gemma3", "Gemma3", config="Gemma3TextConfig", head_dim=16, query_pre_attn_scalar=16, **WINDOW),
    _decoder("phi", "Phi", ("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2")),
    _decoder("phi3", "Phi3", ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")),
    _decoder("mixtral", "Mixtral", ATTENTION, num_local_experts=4, num_experts_per_tok=2),
    _decoder(
        "qwen3-moe", "Qwen3Moe", ATTENTION, head_dim=16, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=64
    ),
    Family(
        "mamba",
        "MambaForCausalLM",
        "MambaConfig",
        {"vocab_size": batches.VOCABULARY, "hidden_size": 64, "state_size": 8, "num_hidden_layers": 2},
        batches.unpadded,
        ("in_proj", "x_proj"),
        ("input_ids",),
    ),
    Family(
        "mamba2",
        "Mamba2ForCausalLM",
        "Mamba2Config",
        {
            "vocab_size": batches.VOCABULARY,
            "hidden_size": 64,
            "state_size": 8,
            "num_hidden_layers": 2,
            "num_heads": 8,
            "head_dim": 16,
            "n_groups": 1,
            "chunk_size": 8,
        },
        batches.unpadded,
        ("in_proj",),
        ("input_ids",),
    ),
)

PICTURES = (
    Family(
        "vit",
        "ViTForImageClassification",
        "ViTConfig",
        {**VISION, "num_labels": 4},
        batches.classified_pictures,
        ("q_proj", "v_proj"),
    ),
    Family(
        "clip",
        "CLIPModel",
        "CLIPConfig",
        {"text_config": TEXT_ENCODER, "vision_config": VISION, "projection_dim": 32},
        batches.captioned_pictures,
        ("q_proj", "v_proj"),
    ),
    Family(
        "xclip",
        "XCLIPModel",
        "XCLIPConfig",
        {
            "text_config": TEXT_ENCODER,
            "vision_config": {
                **VISION,
                "num_frames": 2,
                "mit_hidden_size": 64,
                "mit_intermediate_size": 128,
                "mit_num_attention_heads": 4,
            },
            "projection_dim": 64,
            "prompt_layers": 1,
            "prompt_num_attention_heads": 4,
        },
        batches.captioned_films,
        ("q_proj", "v_proj"),
    ),
    Family(
        "detr",
        "DetrForObjectDetection",
        "DetrConfig",
        {
            "backbone_config": {
                "model_type": "resnet",
                "embedding_size": 8,
                "hidden_sizes": [8, 8, 16, 16],
                "depths": [1, 1, 1, 1],
                "layer_type": "basic",
                "out_features": ["stage4"],
            },
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "num_queries": 6,
            "num_labels": 4,
        },
        batches.pictures_with_boxes,
        ("q_proj", "v_proj"),
        autocast=True,  # its matcher calls torch.cdist, which the CPU has for fp32 only
        needs="scipy",
    ),
)

PICTURES_AND_TEXT = (
    Family(
        "llava",
        "LlavaForConditionalGeneration",
        "LlavaConfig",
        {
            "text_config": {**DECODER, "model_type": "llama"},
            "vision_config": {**VISION, "model_type": "clip_vision_model"},
            "image_token_index": batches.IMAGE,
            "vision_feature_layer": -1,
        },
        batches.llava,
        GATED,
        (*TEXT, "pixel_values"),
    ),
    Family(
        "llava-next",
        "LlavaNextForConditionalGeneration",
        "LlavaNextConfig",
        {
            "text_config": {**DECODER, "model_type": "llama"},
            "vision_config": {**VISION, "model_type": "clip_vision_model"},
            "image_token_index": batches.IMAGE,
            "image_grid_pinpoints": [[32, 32]],
            "vision_feature_layer": -1,
        },
        batches.llava_next,
        GATED,
        (*TEXT, "pixel_values", "image_sizes"),
    ),
    Family(
        "qwen2.5-vl",
        "Qwen2_5_VLForConditionalGeneration",
        "Qwen2_5_VLConfig",
        {
            "text_config": {
                **DECODER,
                "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
            },
            "vision_config": {
                "depth": 2,
                "hidden_size": 32,
                "num_heads": 2,
                "intermediate_size": 64,
                "out_hidden_size": 64,
                "patch_size": 8,
                "window_size": 32,
                "fullatt_block_indexes": [1],
            },
            "image_token_id": batches.IMAGE,
            "vision_start_token_id": batches.VISION_START,
            "vision_end_token_id": batches.VISION_END,
            "video_token_id": batches.VIDEO,
        },
        batches.qwen_vl,
        (*GATED, "qkv", "proj"),
        (*TEXT, "pixel_values", "image_grid_thw", "mm_token_type_ids"),
    ),
)

SOUNDS = (
    Family(
        "whisper",
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        {
            "vocab_size": batches.VOCABULARY,
            "num_mel_bins": 16,
            "d_model": 64,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 128,
            "decoder_ffn_dim": 128,
            "max_source_positions": 30,
            "max_target_positions": 32,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
        },
        batches.whisper,
        ("q_proj", "v_proj"),
        ("input_features",),
    ),
    Family(
        "wav2vec2",
        "Wav2Vec2ForCTC",
        "Wav2Vec2Config",
        {
            **ENCODER,
            "vocab_size": 32,
            "conv_dim": [32, 32, 32],
            "conv_kernel": [10, 4, 4],
            "conv_stride": [5, 4, 2],
            "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 2,
            "ctc_loss_reduction": "mean",
        },
        batches.transcribed_sounds,
        ("q_proj", "v_proj"),
    ),
    Family(
        "clap",
        "ClapModel",
        "ClapConfig",
        {
            "text_config": {**TEXT_ENCODER, "pad_token_id": 0},
            "audio_config": {
                "window_size": 4,
                "num_mel_bins": 16,
                "spec_size": 64,
                "patch_size": 2,
                "patch_stride": [2, 2],
                "hidden_size": 64,
                "patch_embeds_hidden_size": 32,
                "depths": [2, 2],
                "num_attention_heads": [2, 2],
                "num_hidden_layers": 2,
            },
            "projection_dim": 32,
        },
        batches.clap,
        ("query", "value"),
    ),
)

FAMILIES: dict[str, Family] = {family.name: family for family in (*LANGUAGE, *PICTURES, *PICTURES_AND_TEXT, *SOUNDS)}
