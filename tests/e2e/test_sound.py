"""Whisper, Qwen2-Audio, a model for text and a classifier through FastModel on the simulated Mac, as in notebooks.

The sounds are waveforms at 16 kHz that go through the feature extractor. Oracle: transformers, PEFT and bitsandbytes on
the CPU without patches, with the same batches and start values; the loss is a plain formula.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.e2e.test_vision import STEPS, Results, check_16_bit, check_training, run_both

pytestmark = pytest.mark.slow

MODELS = ("whisper", "qwen2-audio", "llama", "modernbert")
QUANTIZED_MODELS = ("whisper", "qwen2-audio", "llama")
TRAINERS = {
    "whisper": "Seq2SeqTrainer",
    "qwen2-audio": "UnslothSFTTrainer",
    "llama": "UnslothSFTTrainer",
    "modernbert": "Trainer",
}
"""ModernBERT's weights are all trained; the others get LoRA."""
EXACT = [*(f"{model}-float32" for model in MODELS), *(f"{model}-nf4" for model in QUANTIZED_MODELS)]
HALF = [f"{model}-bfloat16" for model in MODELS]
KEPT: dict[str, tuple[str, ...]] = {
    "whisper": ("proj_out",),
    "qwen2-audio": ("model.audio_tower.", "model.multi_modal_projector.linear", "lm_head"),
    "llama": ("lm_head",),
}
"""How the names begin of the linear layers that Unsloth does not quantize. Whisper's head is its embedding."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What every run gave, by stack and name."""
    todo = [(name, *name.rsplit("-", 1), True) for name in (*EXACT, *HALF)]
    return run_both("sound", tmp_path_factory.mktemp("sound"), todo)


@pytest.mark.parametrize("name", EXACT)
def test_training_equals_the_cpu(runs: Results, name: str) -> None:
    """Six losses, and the first gradient of every trained tensor: in the encoder of sounds, too."""
    check_training(runs, name)
    model = name.rsplit("-", 1)[0]
    assert runs[f"unsloth-{name}"]["trainer"] == TRAINERS[model]
    if model in ("whisper", "qwen2-audio"):
        places = runs[f"unsloth-{name}"]["gradients"]
        assert any("encoder" in place or "audio_tower" in place for place in places)


@pytest.mark.parametrize("name", [name for name in EXACT if not name.startswith("modernbert")])
def test_generation_equals_the_cpu(runs: Results, name: str) -> None:
    """The greedy tokens of the trained model after FastModel.for_inference, about a waveform or a text."""
    ours = runs[f"unsloth-{name}"]["tokens"]
    assert ours == runs[f"cpu-{name}"]["tokens"]
    assert len(ours) > 0


@pytest.mark.parametrize("name", HALF)
def test_bf16_is_as_exact_as_the_cpu(runs: Results, name: str) -> None:
    """Losses and gradients are at most 1.5 times as far from fp32 as transformers and PEFT on the CPU in bf16."""
    # Through Unsloth the loss of ModernBERT is a bf16 number, which has 8 bits.
    check_16_bit(runs, name, rounded=2**-9 if name.startswith("modernbert") else 0.0)


@pytest.mark.parametrize("model", QUANTIZED_MODELS)
def test_4_bit_is_4_bit(runs: Results, model: str) -> None:
    """Every linear layer is stored in 4 bits per weight on mps but the head, and Qwen2-Audio's tower and projector."""
    layers: dict[str, Any] = dict(runs[f"unsloth-{model}-nf4"]["layers"])
    kept = {name for name in layers if name.startswith(KEPT[model])}
    assert all(any(name.startswith(beginning) for name in kept) for beginning in KEPT[model])
    assert {layers[name][1:] for name in kept} == {("mps", 32.0)}
    packed = [value for name, value in layers.items() if name not in kept]
    assert len(packed) >= 14
    assert set(packed) == {("Linear4bit", "mps", 4.0)}


@pytest.mark.parametrize("name", ["whisper-float32", "qwen2-audio-float32"])
def test_the_sounds_are_in_the_batches(runs: Results, name: str) -> None:
    """Every batch has two spectra of its own, each of 100 frames."""
    batches = runs[f"unsloth-{name}"]["batches"]
    assert len(batches) == 2 * STEPS
    spectra = [batch["input_features"] for batch in batches]
    assert {tuple(spectrum.shape) for spectrum in spectra} == {(2, 16, 100)}
    assert all(spectrum.float().std() > 0.1 for spectrum in spectra)
    assert not any(torch.equal(spectra[0], other) for other in spectra[1:])


@pytest.mark.parametrize("name", [*EXACT, *HALF])
def test_nothing_runs_on_the_cpu_instead(runs: Results, name: str) -> None:
    """No operator of training or generation is missing on a Mac."""
    assert runs[f"unsloth-{name}"]["rules"] == {"fell_back": {}}
