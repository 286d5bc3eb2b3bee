"""Unsloth's loaders, with a look at the arguments first. FastVisionModel and FastTextModel inherit FastModel's."""

from __future__ import annotations

import importlib
import inspect
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

from patcher.engine.ledger import original
from patcher.errors import NotOnMac, compose

_SIXTEEN_BIT = "pass load_in_4bit=False, load_in_8bit=False to train a 16-bit LoRA (weights take 2 bytes per parameter)"
_INSTALL = f"pip install bitsandbytes and start again, or {_SIXTEEN_BIT}"
_MISSING = "bitsandbytes is not installed, or has no operators for mps"


class FastLanguageModel:
    """Replacements for the static methods of ``unsloth.FastLanguageModel``."""

    @staticmethod
    def from_pretrained(*args: Any, **kwargs: Any) -> Any:
        """Loads a language model and its tokenizer; raises NotOnMac for what mps lacks."""
        return _load("FastLanguageModel", args, kwargs)


class FastModel:
    """Replacements for the static methods of ``unsloth.FastModel``."""

    @staticmethod
    def from_pretrained(*args: Any, **kwargs: Any) -> Any:
        """Loads any model and its tokenizer or processor; raises NotOnMac for what mps lacks."""
        return _load("FastModel", args, kwargs)


def _load(loader: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    load = original(f"unsloth.models.loader:{loader}.from_pretrained")
    call = f"{loader}.from_pretrained"
    values, passed = _arguments(load, args, kwargs)
    _refuse_other_engines(call, values)
    if _quantizes():
        loaded = load(*args, **kwargs)
        _refuse_fused_experts(call, loaded)
        return loaded
    _refuse_bitsandbytes(call, values, passed)
    loaded = load(*args, **kwargs)
    _refuse_loaded_in_bits(call, loaded)
    return loaded


def _quantizes() -> bool:
    """What Unsloth found when it was imported; without it every request for 4 or 8 bit would load 16 bit."""
    return bool(importlib.import_module("unsloth.models.loader").ALLOW_BITSANDBYTES)


def _arguments(
    load: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[dict[str, Any], frozenset[str]]:
    """The values of all arguments by name, defaults included, and the names that the caller passed."""
    bound = inspect.signature(load).bind(*args, **kwargs)
    passed = frozenset(bound.arguments) | frozenset(kwargs)
    bound.apply_defaults()
    return {**bound.arguments, **kwargs}, passed


def _refuse_other_engines(call: str, values: Mapping[str, Any]) -> None:
    """vLLM and fp8 need CUDA."""
    if values.get("fast_inference"):
        raise _refusal(
            call,
            "fast_inference=True: vLLM does not run on a Mac",
            "pass fast_inference=False and call model.generate() after FastLanguageModel.for_inference(model)",
        )
    if values.get("load_in_fp8"):
        raise _refusal(
            call,
            f"load_in_fp8={values['load_in_fp8']!r}: mps has no 8-bit floating point",
            f"leave load_in_fp8 out, and {_SIXTEEN_BIT}",
        )


def _refuse_bitsandbytes(call: str, values: Mapping[str, Any], passed: frozenset[str]) -> None:
    """4-bit and 8-bit weights without bitsandbytes; what upstream loads in 16 bit on CUDA too goes through."""
    for flag in ("load_in_4bit", "load_in_8bit"):
        if _read(values.get("quantization_config"), flag):
            raise _refusal(call, f"quantization_config with {flag}=True: {_MISSING}", _INSTALL)
    name = str(values.get("model_name"))
    if _saved_by_bitsandbytes(name):
        raise _refusal(call, f"{name} holds weights quantized by bitsandbytes: {_MISSING}", _INSTALL)
    if values.get("full_finetuning"):
        return
    if values.get("load_in_8bit"):
        raise _refusal(call, f"load_in_8bit=True: {_MISSING}", _INSTALL)
    if values.get("load_in_4bit") and "load_in_4bit" in passed:
        raise _refusal(call, f"load_in_4bit=True: {_MISSING}", _INSTALL)
    if values.get("load_in_4bit") and not values.get("load_in_16bit") and not _is_16_bit_repository(name):
        raise _refusal(call, f"load_in_4bit=True (the default of this function): {_MISSING}", _INSTALL)


def _refuse_loaded_in_bits(call: str, loaded: Any) -> None:
    """A checkpoint whose configuration is only known after it was fetched."""
    model = loaded[0] if isinstance(loaded, tuple) else loaded
    config = getattr(model, "config", None)
    if _read(getattr(config, "quantization_config", None), "quant_method") == "bitsandbytes":
        raise _refusal(call, f"the checkpoint holds weights quantized by bitsandbytes: {_MISSING}", _INSTALL)


def _refuse_fused_experts(call: str, loaded: Any) -> None:
    """gpt-oss whose experts were quantized as one tensor: only a CUDA kernel of Unsloth's unpacks them."""
    model = loaded[0] if isinstance(loaded, tuple) else loaded
    for module in getattr(model, "modules", tuple)():
        fused = getattr(module, "gate_up_proj", None)
        if type(module).__name__ == "GptOssExperts" and getattr(fused, "quant_state", None) is not None:
            raise _refusal(
                call,
                "gpt-oss in 4 bit from a checkpoint with fused experts does not work on mps",
                f"name a checkpoint with separate experts, unsloth/gpt-oss-20b-unsloth-bnb-4bit, or {_SIXTEEN_BIT}",
            )


def _saved_by_bitsandbytes(name: str) -> bool:
    """Whether ``name`` is a folder whose config.json says so. Nothing is fetched."""
    path = os.path.join(os.path.expanduser(name), "config.json")
    if not os.path.isfile(path):
        return False
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    return bool(_read(config.get("quantization_config"), "quant_method") == "bitsandbytes")


def _is_16_bit_repository(name: str) -> bool:
    """Upstream drops its 4-bit default for these, and says so."""
    return name.lower().endswith("-bf16") and not os.path.isdir(os.path.expanduser(name))


def _read(config: Any, name: str) -> Any:
    return config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)


def _refusal(call: str, headline: str, run: str) -> NotOnMac:
    return NotOnMac(compose(headline, target=call, left="no model was loaded", run=run))
