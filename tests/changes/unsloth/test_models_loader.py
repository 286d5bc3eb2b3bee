"""Unsloth's loaders never load 16 bit where 4 or 8 bit was asked for, and name what to use instead of vLLM."""

from __future__ import annotations

import ast
import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from patcher.errors import NotOnMac
from patcher.replacements.unsloth import models_loader as loader
from tests.process import answer, run_python

READ = (
    "model_name",
    "load_in_4bit",
    "load_in_8bit",
    "load_in_16bit",
    "full_finetuning",
    "fast_inference",
    "load_in_fp8",
)


@pytest.fixture(params=["FastLanguageModel", "FastModel"])
def load(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """The replacement without bitsandbytes, over a loader with upstream's defaults that gives back its arguments."""

    def from_pretrained(
        model_name: str = "unsloth/Llama-3.2-1B-Instruct",
        max_seq_length: int = 2048,
        dtype: Any = None,
        load_in_4bit: bool = True,
        load_in_8bit: bool = False,
        load_in_16bit: bool = False,
        full_finetuning: bool = False,
        fast_inference: bool = False,
        load_in_fp8: bool = False,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[Any, dict[str, Any]]:
        return SimpleNamespace(config=SimpleNamespace(quantization_config=LOADED.get(model_name))), kwargs

    target = f"unsloth.models.loader:{request.param}.from_pretrained"
    monkeypatch.setattr(loader, "original", {target: from_pretrained}.__getitem__)
    monkeypatch.setattr(loader, "_quantizes", lambda: False)
    yield getattr(loader, request.param).from_pretrained


LOADED = {"remote/saved-in-4bit": SimpleNamespace(quant_method="bitsandbytes")}


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({}, ["load_in_4bit=True (the default", "load_in_4bit=False"]),
        ({"load_in_4bit": True}, ["load_in_4bit=True: bitsandbytes", "pip install bitsandbytes", "load_in_4bit=False"]),
        ({"model_name": "unsloth/x-bf16", "load_in_4bit": True}, ["load_in_4bit=True: bitsandbytes"]),
        ({"load_in_16bit": True, "load_in_4bit": True}, ["load_in_4bit=True: bitsandbytes"]),
        ({"load_in_8bit": True, "load_in_4bit": False}, ["load_in_8bit=True: bitsandbytes", "load_in_8bit=False"]),
        ({"load_in_4bit": False, "quantization_config": {"load_in_4bit": True}}, ["quantization_config"]),
        (
            {"full_finetuning": True, "quantization_config": SimpleNamespace(load_in_8bit=True)},
            ["quantization_config with load_in_8bit=True"],
        ),
        ({"load_in_4bit": False, "model_name": "remote/saved-in-4bit"}, ["quantized by bitsandbytes"]),
        ({"load_in_4bit": False, "fast_inference": True}, ["vLLM", "fast_inference=False", "model.generate()"]),
        ({"load_in_4bit": False, "load_in_fp8": "block"}, ["load_in_fp8='block'", "leave load_in_fp8 out"]),
    ],
)
def test_what_mps_lacks_raises_and_names_the_alternative(
    load: Callable[..., Any], arguments: dict[str, Any], names: list[str]
) -> None:
    """Each request raises before anything is loaded; the error is no ImportError that a guard would swallow."""
    with pytest.raises(NotOnMac) as raised:
        load(**arguments)
    assert all(name in str(raised.value) for name in [*names, "no model was loaded"])
    assert not isinstance(raised.value, ImportError)


@pytest.mark.parametrize(
    "arguments",
    [
        {"load_in_4bit": False},
        {"load_in_16bit": True},
        {"full_finetuning": True},
        {"model_name": "unsloth/Llama-3.2-1B-bf16"},
        {"load_in_4bit": False, "attn_implementation": "sdpa", "quantization_config": {"quant_method": "mxfp4"}},
        {"load_in_4bit": False, "attn_implementation": "flash_attention_2"},
    ],
)
def test_what_was_asked_for_in_16_bit_goes_through(load: Callable[..., Any], arguments: dict[str, Any]) -> None:
    """Explicit 16 bit, full fine-tuning and -bf16 repositories load as on CUDA, arguments untouched."""
    _, rest = load(**arguments, cache_dir="somewhere")
    assert rest["cache_dir"] == "somewhere"


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"load_in_4bit": True},
        {"load_in_8bit": True, "load_in_4bit": False},
        {"quantization_config": {"load_in_4bit": True}},
        {"model_name": "remote/saved-in-4bit"},
    ],
)
def test_with_bitsandbytes_4_and_8_bit_go_through(
    load: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any]
) -> None:
    """Where Unsloth found bitsandbytes usable its loader is called as on CUDA."""
    monkeypatch.setattr(loader, "_quantizes", lambda: True)
    _, rest = load(**arguments, cache_dir="somewhere")
    assert rest["cache_dir"] == "somewhere"


def test_gpt_oss_with_fused_experts_in_4_bit_is_refused(
    load: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its packed experts would reach a matrix product as they are; in 16 bit it loads."""

    class GptOssExperts:
        gate_up_proj = SimpleNamespace(quant_state=None)

    model = SimpleNamespace(modules=lambda: [GptOssExperts()])
    monkeypatch.setattr(loader, "_quantizes", lambda: True)
    monkeypatch.setattr(loader, "original", lambda _: lambda **_: (model, None))
    assert load() == (model, None)
    GptOssExperts.gate_up_proj.quant_state = object()
    with pytest.raises(NotOnMac, match="gpt-oss in 4 bit"):
        load()


def test_positional_arguments_are_read_too(load: Callable[..., Any]) -> None:
    """``from_pretrained(name, 2048, None, True)`` is the same request as by name."""
    with pytest.raises(NotOnMac, match="load_in_4bit=True: bitsandbytes"):
        load("some/model", 2048, None, True)


def test_a_folder_saved_in_4_bit_is_seen_before_loading(load: Callable[..., Any], tmp_path: Path) -> None:
    """The configuration of a local checkpoint is read, also where load_in_4bit=False was passed."""
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "bitsandbytes"}}))
    with pytest.raises(NotOnMac, match="holds weights quantized by bitsandbytes"):
        load(str(tmp_path), load_in_4bit=False)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    load(str(tmp_path), load_in_4bit=False)


def test_upstream_still_has_the_arguments_that_are_read() -> None:
    """Renamed arguments would slip through; both loaders of the installed Unsloth have all of them."""
    spec = importlib.util.find_spec("unsloth")
    assert spec is not None and spec.origin is not None
    tree = ast.parse((Path(spec.origin).parent / "models" / "loader.py").read_text())
    loaders = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    for name in ("FastLanguageModel", "FastModel"):
        functions = [node for node in loaders[name].body if isinstance(node, ast.FunctionDef)]
        (function,) = [node for node in functions if node.name == "from_pretrained"]
        assert set(READ) <= {argument.arg for argument in function.args.args}
    for name in ("FastVisionModel", "FastTextModel"):
        assert [base.id for base in loaders[name].bases if isinstance(base, ast.Name)] == ["FastModel"]


SCRIPT = """
import json, sys
import patcher.engine.imports as imports
if sys.argv[1] == "without_bitsandbytes":
    real = imports.real_install
    imports.real_install = lambda module: None if module == "bitsandbytes" else real(module)
from patcher import patch_for_mac
patch_for_mac(simulate=True)
import unsloth, torch, bitsandbytes
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
words = Tokenizer(models.WordLevel({"<pad>": 0, "<s>": 1, "a": 2}, unk_token="a"))
PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", bos_token="<s>").save_pretrained("m")
config = LlamaConfig(vocab_size=32, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
                     max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=1)
LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained("m")
result = {"file": bitsandbytes.__file__, "errors": [], "layers": []}
from unsloth import FastLanguageModel, FastModel, FastVisionModel
for loader in (FastLanguageModel, FastModel, FastVisionModel):
    try:
        model, _ = loader.from_pretrained("m", max_seq_length=64)
        result["layers"].append(type(model.model.layers[0].mlp.up_proj).__name__)
    except Exception as error:
        result["errors"].append(type(error).__name__)
flash = LlamaForCausalLM.from_pretrained("m", attn_implementation="flash_attention_2")
result["attention"] = flash.config._attn_implementation
model, _ = FastLanguageModel.from_pretrained("m", max_seq_length=64, load_in_4bit=False)
model = FastLanguageModel.get_peft_model(model, r=4, target_modules=["q_proj", "v_proj", "up_proj", "down_proj"])
rows = torch.arange(2, 18, device="mps")[None]
model(input_ids=rows, labels=rows).loss.backward()
grads = [p.grad for n, p in model.named_parameters() if "lora_B" in n]
result |= {"device": grads[0].device.type, "grads": [g.float().abs().sum().item() for g in grads]}
print("ANSWER" + json.dumps(result))
"""


@pytest.mark.slow
@pytest.mark.parametrize("which", ["with_bitsandbytes", "without_bitsandbytes"])
def test_loading_through_unsloth_with_and_without_bitsandbytes(which: str, tmp_path: Path) -> None:
    """By default the loaders load 4 bit, or refuse to without bitsandbytes; a 16-bit LoRA gets gradients in both."""
    answers = answer(run_python("-W", "ignore", "-c", SCRIPT, which, cwd=tmp_path, timeout=400))
    with_it = which == "with_bitsandbytes"
    assert answers["layers"] == ["Linear4bit"] * 3 * with_it
    assert answers["errors"] == ["NotOnMac"] * (0 if with_it else 3)
    assert answers["attention"] == "flash_attention_2"
    assert answers["device"] == "mps" and len(answers["grads"]) == 4 and all(grad > 0 for grad in answers["grads"])
    assert ("shims" in answers["file"]) == (not with_it)
