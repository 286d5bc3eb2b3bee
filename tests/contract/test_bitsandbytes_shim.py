"""The bitsandbytes shim lets 16-bit training run without bitsandbytes, and never quantizes or optimizes quietly."""

from __future__ import annotations

import ast
import fnmatch
import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from patcher.changes.bitsandbytes.shim import CHANGES
from patcher.errors import MissingLibrary
from tests.contract.surface import names_read, resolves, unread

READERS = ("torch", "trl", "unsloth", "unsloth_zoo", "transformers", "peft", "accelerate")

NOT_NEEDED = {
    "bitsandbytes.backends.*": "kernels of other devices, read under except ImportError",
    "bitsandbytes.cextension.ROCM_WARP_SIZE_64": "ROCm only",
    "bitsandbytes.functional.get_4bit_type": "read by a patch of Unsloth's that first needs the real functions",
    "bitsandbytes.nn.modules.fix_4bit_weight_quant_state_from_module": "read under except, for versions that have it",
    "bitsandbytes.optim.optimizer.sync_gpu": "Unsloth replaces it where it is there",
    "bitsandbytes.utils.*": "vLLM only",
}

SUPPLIED_ANYWAY = {
    "bitsandbytes.functional.missing": "makes the errors",
    "bitsandbytes.functional.QUANTIZED": "a part of the errors",
    "bitsandbytes.nn.modules.QUANTIZED": "a part of the errors",
    "bitsandbytes.optim.INSTEAD": "a part of the errors",
    "bitsandbytes.optim.optimizer.INSTEAD": "a part of the errors",
    "bitsandbytes.optim.optimizer.Optimizer1State": "base of optimizers",
    "bitsandbytes.supported_torch_devices": "transformers reads it with getattr",
}


@pytest.fixture(scope="module")
def read() -> dict[str, list[str]]:
    return names_read("bitsandbytes", READERS, ("unsloth_zoo/stubs/",))


def test_every_name_that_is_read_exists_or_says_why_not(read: dict[str, list[str]], bitsandbytes_shim: None) -> None:
    """A new upstream name is noticed: it is either in the shim or in NOT_NEEDED with a reason."""
    importlib.import_module("bitsandbytes")
    missing = {name: places[:3] for name, places in read.items() if not resolves(name)}
    assert not {n: p for n, p in missing.items() if not any(fnmatch.fnmatchcase(n, x) for x in NOT_NEEDED)}
    assert not [pattern for pattern in NOT_NEEDED if not fnmatch.filter(missing, pattern)]


def test_the_shim_has_no_name_that_nobody_reads(read: dict[str, list[str]], bitsandbytes_shim: None) -> None:
    """Beyond what libraries read there are only the optimizers, which scripts name."""
    importlib.import_module("bitsandbytes")
    assert unread("bitsandbytes", read) - {f"bitsandbytes.optim.{n}" for n in _real_optimizers()} == set(
        SUPPLIED_ANYWAY
    )


def test_the_optimizers_are_those_of_the_real_library(bitsandbytes_shim: None) -> None:
    """Every optimizer of bitsandbytes 0.50 has its name here, and none that it does not have."""
    optim = importlib.import_module("bitsandbytes.optim")
    base = optim.optimizer.Optimizer8bit
    ours = {name for name, value in vars(optim).items() if isinstance(value, type) and issubclass(value, base)}
    assert ours - {"Optimizer1State", "Optimizer2State"} == _real_optimizers()


@pytest.mark.parametrize("name", ["AdamW8bit", "PagedAdamW32bit", "Lion", "SGD8bit"])
def test_making_an_optimizer_names_the_torch_one(bitsandbytes_shim: None, name: str) -> None:
    """Never a silent other optimizer: the error names fused AdamW and the package."""
    optim = importlib.import_module("bitsandbytes.optim")
    with pytest.raises(MissingLibrary) as raised:
        getattr(optim, name)([torch.nn.Parameter(torch.zeros(2))], lr=1e-3)
    for part in (f"bitsandbytes.optim.{name}", "adamw_torch_fused", "pip install bitsandbytes"):
        assert part in str(raised.value)
    assert not isinstance(raised.value, ImportError)


def test_making_or_computing_anything_quantized_says_what_to_do(bitsandbytes_shim: None) -> None:
    """Layers, parameters and functions raise; the message names the package and 16 bit."""
    bnb = importlib.import_module("bitsandbytes")
    weight = torch.zeros(4, 4)
    attempts: list[Callable[[], object]] = [
        lambda: bnb.nn.Linear4bit(4, 4),
        lambda: bnb.nn.Linear8bitLt(4, 4),
        lambda: bnb.nn.Params4bit(weight),
        lambda: bnb.nn.Int8Params(weight),
        lambda: bnb.nn.Params4bit.from_prequantized(weight, {}),
        lambda: bnb.functional.quantize_4bit(weight),
        lambda: bnb.functional.QuantState.from_dict({}, "cpu"),
        lambda: bnb.matmul_4bit(weight, weight, None),
    ]
    for attempt in attempts:
        with pytest.raises(MissingLibrary, match=r"pip install bitsandbytes.*load_in_4bit=False"):
            attempt()


def test_classes_are_those_of_isinstance(bitsandbytes_shim: None) -> None:
    """An ordinary layer is none of them, and the bases are torch's, as in the real library."""
    bnb = importlib.import_module("bitsandbytes")
    assert not isinstance(torch.nn.Linear(2, 2), (bnb.nn.Linear4bit, bnb.nn.Linear8bitLt))
    assert not isinstance(torch.nn.Parameter(torch.zeros(2)), (bnb.nn.Params4bit, bnb.nn.Int8Params))
    assert issubclass(bnb.nn.Linear4bit, torch.nn.Linear) and issubclass(bnb.nn.Params4bit, torch.nn.Parameter)
    assert issubclass(bnb.optim.AdamW8bit, torch.optim.Optimizer)
    assert bnb.functional.lib is None
    assert bnb.functional.get_ptr(None) is None
    assert bnb.functional.get_ptr(torch.ones(3)).value


def test_module_metadata_and_change_agree(bitsandbytes_shim: None) -> None:
    """find_spec, importlib.metadata and ``__version__`` give one answer."""
    bnb = importlib.import_module("bitsandbytes")
    spec = importlib.util.find_spec("bitsandbytes")
    assert bnb.__version__ == CHANGES[0].version == importlib.metadata.version("bitsandbytes")
    assert spec is not None and "shims" in str(spec.origin)


@pytest.mark.slow
def test_lora_works_and_quantization_raises_without_bitsandbytes(ask: Callable[..., dict[str, Any]]) -> None:
    """PEFT trains a 16-bit LoRA with the shim in place; 4-bit and 8-bit in transformers raise, and load nothing."""
    answers = ask(
        "bitsandbytes",
        """
import torch, transformers, peft, peft.import_utils
from transformers import BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM
config = LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
model = LlamaForCausalLM(config).to(torch.bfloat16)
model.save_pretrained("llama")
model = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM"))
rows = torch.arange(8)[None]
model(input_ids=rows, labels=rows).loss.backward()
grads = [p.grad.abs().sum().item() for n, p in model.named_parameters() if "lora_B" in n]
errors = []
for bits in ("load_in_4bit", "load_in_8bit"):
    try:
        LlamaForCausalLM.from_pretrained("llama", quantization_config=BitsAndBytesConfig(**{bits: True}))
        errors.append("loaded")
    except Exception as error:
        errors.append(type(error).__name__)
answer(probe=peft.import_utils.is_bnb_4bit_available(), grads=grads, errors=errors)
""",
    )
    assert answers["probe"] and len(answers["grads"]) == 2 and all(grad > 0 for grad in answers["grads"])
    assert answers["errors"] == ["MissingLibrary", "MissingLibrary"]


def _real_optimizers() -> set[str]:
    """Optimizers that the installed bitsandbytes exports, read from its source; PytorchLARS is a torch one."""
    spec = importlib.machinery.PathFinder.find_spec("bitsandbytes")
    assert spec is not None and spec.origin is not None, "the real bitsandbytes is not installed"
    tree = ast.parse((Path(spec.origin).parent / "optim" / "__init__.py").read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    return names - {"PytorchLARS", "GlobalOptimManager"}
