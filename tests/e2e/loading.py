"""Loads one sharded model in every way and writes what it took. Run by the tests, in a process of its own:

python -m tests.e2e.loading MODEL OUT.json [unsloth]
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from patcher import patch_for_mac

patch_for_mac(simulate="M3 Max 36GB")
UNSLOTH = sys.argv[3:] == ["unsloth"]
if UNSLOTH:
    from unsloth import FastLanguageModel

import torch
from bitsandbytes.functional import quantize_4bit
from bitsandbytes.nn import Params4bit
from safetensors import safe_open
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from patcher.macs import fit
from patcher.macs.mac import parse
from patcher.simulator import running

MODEL = sys.argv[1]
FORMS: dict[str, Any] = {
    "'mps'": "mps",
    "'auto'": "auto",
    "'cuda'": "cuda",
    "'cuda:0'": "cuda:0",
    "device('cuda')": torch.device("cuda"),
    "{'': 0}": {"": 0},
    "two GPUs": {"model": 0, "lm_head": "cuda:1"},
    "head on the CPU": {"model": "cuda:0", "lm_head": "cpu"},
}


def load(**arguments: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(MODEL, **arguments)


def within_context() -> Any:
    with torch.device("cuda"):
        return load()


def quantized(**arguments: Any) -> Any:
    return load(quantization_config=BitsAndBytesConfig(bnb_4bit_compute_dtype=torch.bfloat16, **arguments))


def plain_cases() -> dict[str, Callable[[], Any]]:
    """Ways to load with transformers alone."""
    cases: dict[str, Callable[[], Any]] = {
        f"device_map={name}": lambda place=place: load(device_map=place) for name, place in FORMS.items()
    }
    return {
        **cases,
        "max_memory": lambda: load(device_map="sequential", max_memory={0: "100MB", 1: "50MB", "cpu": "30GB"}),
        "with torch.device('cuda')": within_context,
        "float16": lambda: load(device_map="mps", dtype=torch.float16),
        "float32": lambda: load(device_map="cuda:0", dtype=torch.float32),
        "CPU, then mps": lambda: load().to("mps"),
        "NF4": lambda: quantized(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
        "8 bit": lambda: quantized(load_in_8bit=True),
    }


def unsloth_cases() -> dict[str, Callable[[], Any]]:
    """Ways to load with Unsloth."""

    def unsloth(**arguments: Any) -> Any:
        return FastLanguageModel.from_pretrained(MODEL, max_seq_length=256, **arguments)[0]

    return {
        "16 bit": lambda: unsloth(load_in_4bit=False),
        "float16": lambda: unsloth(load_in_4bit=False, dtype=torch.float16),
        "device_map='cuda:0'": lambda: unsloth(load_in_4bit=False, device_map="cuda:0"),
        "device_map='auto'": lambda: unsloth(load_in_4bit=False, device_map="auto"),
        "NF4, double": lambda: unsloth(load_in_4bit=True),
    }


def measured(make: Callable[[], Any]) -> dict[str, Any]:
    """Loads, and tells the memory of the device and of the host, the peak of both together to the page."""
    device = running()
    assert device is not None
    gc.collect()
    before = device.memory().current
    device.reset_peak()
    torch.mps.empty_cache()
    driver = device.memory().driver
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again (Linux, proc_pid_clear_refs(5))
    resident = status("VmRSS")
    model = make()
    highest = status("VmHWM")
    memory = device.memory()
    names = {name: tensor for name, tensor in model.named_parameters() if tensor.is_floating_point()}
    return {
        "devices": sorted({tensor.device.type for tensor in model.parameters()}),
        "dtypes": sorted({str(tensor.dtype) for tensor in names.values()}),
        "held": memory.current - before,
        "peak": memory.peak - before,
        "driver": memory.peak_driver - driver,
        "together": highest - resident,
        "hooks": sum(hasattr(module, "_hf_hook") for module in model.modules()),
        "wrong": different({name: tensor for name, tensor in names.items() if tensor.dtype == torch.bfloat16}),
        "codes": codes(model),
        "needed": needs.pop("last", None),
    }


def codes(model: Any) -> bool | None:
    """Whether the 4-bit codes of a large weight, which is quantized in pieces, are bitsandbytes' on the CPU."""
    weight = model.model.layers[0].mlp.gate_proj.weight
    if not isinstance(weight, Params4bit):
        return None
    name = "model.layers.0.mlp.gate_proj.weight"
    file = Path(MODEL) / json.loads((Path(MODEL) / "model.safetensors.index.json").read_text())["weight_map"][name]
    with safe_open(file, framework="pt") as shard:
        expected, state = quantize_4bit(shard.get_tensor(name), quant_type=weight.quant_type)
    same_scales = weight.quant_state.nested or torch.equal(weight.quant_state.absmax.cpu(), state.absmax)
    return same_scales and torch.equal(weight.data.cpu(), expected)


def status(field: str) -> int:
    """Bytes of a line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1]) * 1024


def different(names: dict[str, torch.Tensor]) -> list[str]:
    """The parameters whose bits are not those of the files; every eighth of each file is looked at."""
    wrong = []
    for file in sorted(Path(MODEL).glob("*.safetensors")):
        with safe_open(file, framework="pt") as shard:
            stored = {name: shard.get_tensor(name) for name in sorted(shard.keys())[::8]}
        wrong += [name for name, bits in stored.items() if name in names and not torch.equal(names[name].cpu(), bits)]
    return wrong


def refusal(make: Callable[[], Any]) -> dict[str, Any]:
    """What loading says where torch may take 0.037 times what Metal recommends: 202 MiB on an M1 with 8 GB."""
    device = running()
    assert device is not None
    device.become(parse("M1 8GB"))
    torch.mps.set_per_process_memory_fraction(0.037)
    gc.collect()
    device.reset_peak()
    before = device.memory().current
    try:
        make()
    except Exception as error:  # noqa: BLE001 - its type is the result
        return {"type": type(error).__name__, "text": str(error), "grown": device.memory().peak - before}
    return {"type": None, "text": "", "grown": device.memory().peak - before}


def damaged(beside: Path) -> Any:
    """Loads the model with its second shard cut off."""
    folder = beside.parent / "damaged"
    folder.mkdir()
    for file in Path(MODEL).iterdir():
        (folder / file.name).symlink_to(file)
    shard = folder / "model-00002-of-00004.safetensors"
    shard.unlink()
    shard.write_bytes((Path(MODEL) / shard.name).read_bytes()[: 2**20])
    return FastLanguageModel.from_pretrained(str(folder), load_in_4bit=False)


def refusals() -> dict[str, dict[str, Any]]:
    """What is refused, and what is not."""
    if UNSLOTH:
        return {"unsloth": refusal(unsloth_cases()["16 bit"]), "damaged": refusal(lambda: damaged(Path(sys.argv[2])))}
    return {
        "mps": refusal(lambda: load(device_map="mps")),
        "auto": refusal(lambda: load(device_map="auto")),
        "CPU": refusal(load),
        "part on the disk": refusal(lambda: load(device_map="auto", max_memory={0: "60MB"})),
    }


needs: dict[str, Any] = {}
"""What `patcher.macs.fit` computed in the last load."""


def remember(name: str, need: fit.Need, limit: fit.Limit, machine: Any) -> None:
    needs["last"] = need.weights
    return _CHECK(name, need, limit, machine)


_CHECK = fit.check
fit.check = remember


if __name__ == "__main__":
    measured(lambda: load(device_map="mps"))  # the first load imports, and grows the heap of small objects
    found = {name: measured(make) for name, make in (unsloth_cases() if UNSLOTH else plain_cases()).items()}
    Path(sys.argv[2]).write_text(json.dumps({"loads": found, "refusals": refusals()}))
