"""Generates with small models and writes the tokens. Run by the tests, a process for each stack:

python -m tests.e2e.generation MODELS OUT.json cpu|unsloth|mps

"cpu": transformers and PEFT alone on the CPU, without patches; "unsloth": patched Unsloth on the simulated Mac; "mps":
transformers alone on it. All run the same cases, with fp32 weights.
"""

from __future__ import annotations

import gc
import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

STACK = sys.argv[3]
if STACK != "cpu":
    from patcher import patch_for_mac

    patch_for_mac(simulate="M3 Max 36GB")
if STACK == "unsloth":
    from unsloth import FastLanguageModel

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    TextIteratorStreamer,
    TextStreamer,
    set_seed,
)

from tests.e2e.models import save

FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2")
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PROMPTS = ["The old engineer", "Nobody here will not sell the quiet river near the harbour"]
DEVICE = "cpu" if STACK == "cpu" else "mps"
LONG = 520
"""More than one increment of Unsloth's key-value cache, which is 512 tokens (KV_CACHE_INCREMENT)."""
Case = Callable[[], Any]


class StopAt(StoppingCriteria):
    """Ends every row at a length."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), input_ids.shape[1] >= self.length, device=input_ids.device)


class Ends(LogitsProcessor):
    """Each row ends after as many tokens as are given for it, and not before."""

    def __init__(self, lengths: tuple[int, ...], prompt: int, eos: int) -> None:
        self.lengths, self.prompt, self.eos = lengths, prompt, eos

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores[:, self.eos] = float("-inf")
        for row, length in enumerate(self.lengths):
            if input_ids.shape[1] - self.prompt >= length:
                scores[row] = float("-inf")
                scores[row, self.eos] = 0
        return scores


class Generation:
    """A model, its tokenizer, and the cases."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        tokenizer.padding_side = "left"
        self.one = tokenizer(PROMPTS[:1], return_tensors="pt").to(DEVICE)
        self.two = tokenizer(PROMPTS, return_tensors="pt", padding=True).to(DEVICE)

    def __call__(self, inputs: Any = None, **arguments: Any) -> list[list[int]]:
        common = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 2, **arguments}
        tokens: list[list[int]] = self.model.generate(**(self.one if inputs is None else inputs), **common).tolist()
        return tokens

    def greedy(self) -> dict[str, Case]:
        """What has one right answer, for every family."""
        return {
            "one": self,
            "batch": lambda: self(self.two),
            "varied": lambda: self(repetition_penalty=2.0),
            "no cache": lambda: self(use_cache=False),
            "beams": lambda: self(num_beams=3, num_return_sequences=2, length_penalty=0.5),
            "rollouts": self.rollouts,
        }

    def every(self) -> dict[str, Case]:
        """What else has one right answer."""
        return {
            "beams, batch": lambda: self(self.two, num_beams=2, num_return_sequences=2),
            "no repeat": lambda: self(no_repeat_ngram_size=2, max_new_tokens=24),
            "stopping": lambda: self(stopping_criteria=StoppingCriteriaList([StopAt(9)])),
            "stop strings": lambda: self(stop_strings=["e"], tokenizer=self.tokenizer),
            "static cache": lambda: self(cache_implementation="static"),
            "dictionary": lambda: self.dictionary(),
            "long": lambda: self(max_new_tokens=LONG, min_new_tokens=LONG),
            "long batch": lambda: self(self.two, max_new_tokens=LONG, min_new_tokens=LONG),
            "streamed": self.streamed,
            "streamed by a thread": self.streamed_by_a_thread,
        }

    def rollouts(self) -> list[list[int]]:
        """Three rows of each prompt that end one after the other, as GRPO's do; ``computed`` has rows by forward."""
        self.computed: list[int] = []
        rows = {name: value.repeat_interleave(3, 0) for name, value in self.two.items()}
        ends = LogitsProcessorList([Ends((3, 30, 5, 4, 40, 6), rows["input_ids"].shape[1], self.eos())])
        embedding = self.model.get_input_embeddings()
        forward = embedding.forward

        def counted(ids: torch.Tensor) -> Any:
            self.computed.append(len(ids))
            return forward(ids)

        embedding.forward = counted  # with a hook of a script all rows would be computed
        tokens = self(rows, max_new_tokens=44, logits_processor=ends, eos_token_id=self.eos())
        embedding.forward = forward
        return tokens

    def eos(self) -> int:
        """A token that stands for the end."""
        return int(self.model.config.vocab_size) - 1

    def dictionary(self) -> list[list[int]]:
        """The tokens that the scores of each step say."""
        output = self.model.generate(
            **self.one,
            max_new_tokens=12,
            do_sample=False,
            pad_token_id=2,
            return_dict_in_generate=True,
            output_scores=True,
            output_logits=True,
        )
        assert len(output.scores) == len(output.logits)
        return [[int(score.argmax()) for score in output.scores]]

    def streamed(self) -> str:
        pieces: list[str] = []
        streamer = TextStreamer(self.tokenizer, skip_prompt=True)
        streamer.on_finalized_text = lambda text, stream_end=False: pieces.append(text)
        self(streamer=streamer)
        return "".join(pieces)

    def streamed_by_a_thread(self) -> str:
        streamer = TextIteratorStreamer(self.tokenizer, skip_prompt=True, timeout=300)
        thread = threading.Thread(target=self, kwargs={"streamer": streamer})
        thread.start()
        text = "".join(streamer)
        thread.join()
        return text


def load(folder: str, dtype: torch.dtype = torch.float32, **arguments: Any) -> tuple[Any, Any]:
    """A model for inference and its tokenizer, as a script of the stack loads them."""
    if STACK == "unsloth":
        flags = {"load_in_4bit": False, **arguments}
        model, tokenizer = FastLanguageModel.from_pretrained(folder, max_seq_length=2048, dtype=dtype, **flags)
        return FastLanguageModel.for_inference(model), tokenizer
    attention = "eager" if "gemma2" in folder else "sdpa"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation=attention, **arguments)
    return model.eval().to(DEVICE), AutoTokenizer.from_pretrained(folder)


def adapter_of(folder: Path) -> str:
    """A LoRA whose product is far from zero, for the model in the folder."""
    target = folder.parent / f"{folder.name}-lora"
    if not target.exists():
        set_seed(1)
        config = LoraConfig(r=8, lora_alpha=16, target_modules=MODULES, task_type="CAUSAL_LM", init_lora_weights=False)
        base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        get_peft_model(base, config).save_pretrained(target)
    return str(target)


def with_adapter(folder: Path) -> tuple[Any, Any]:
    """The model with its LoRA attached: Unsloth loads both from the adapter's folder."""
    if STACK == "unsloth":
        return load(adapter_of(folder))
    model, tokenizer = load(str(folder))
    return PeftModel.from_pretrained(model, adapter_of(folder)).eval(), tokenizer


class Forced(LogitsProcessor):
    """Keeps the logits of every step, and lets generate choose the tokens that are given."""

    def __init__(self, tokens: list[int]) -> None:
        self.tokens, self.logits = tokens, []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        chosen = self.tokens[len(self.logits)]
        self.logits.append(scores[0].float().tolist())
        forced = torch.full_like(scores, float("-inf"))
        forced[:, chosen] = 0
        return forced


def logits_along(tokens: list[int], generation: Generation) -> list[list[float]]:
    """The logits of each step, with the tokens given: for Unsloth those of its decoding."""
    forced = Forced(tokens)
    generation(max_new_tokens=len(tokens), logits_processor=LogitsProcessorList([forced]))
    return forced.logits


def halves(folder: Path, tokens: list[int]) -> dict[str, list[list[float]]]:
    """The logits along the tokens, in each dtype."""
    return {
        name: logits_along(tokens, Generation(*load(str(folder), getattr(torch, name))))
        for name in ("float32", "bfloat16", "float16")
    }


def launches(generation: Generation, inputs: Any) -> float:
    """Kernels for each decoded token: of 12 tokens less those of 4."""
    from patcher.simulator.meter import Meter

    counts = []
    for tokens in (4, 12):
        with Meter(modules=False) as meter:
            generation(inputs, max_new_tokens=tokens, min_new_tokens=tokens)
        counts.append(meter.usage().dispatches)
    return (counts[1] - counts[0]) / 8


def calls(run: Case) -> dict[str, int]:
    """How often the functions of Unsloth's decoding were called."""
    counts: dict[str, int] = {}

    def count(frame: Any, event: str, _: Any) -> None:
        name = frame.f_code.co_name
        if event == "call" and ("fast_forward_inference" in name or name == "fast_gemv"):
            counts[name] = counts.get(name, 0) + 1

    sys.setprofile(count)
    try:
        run()
    finally:
        sys.setprofile(None)
    return counts


def of_unsloth(family: str, generation: Generation) -> dict[str, Any]:
    """What is asked of Unsloth's decoding alone."""
    found: dict[str, Any] = {"calls": calls(lambda: generation(max_new_tokens=12, min_new_tokens=12))}
    if family == "llama":
        found |= {"samples": samples(generation), "modes": modes(generation)}
    return found


SAMPLING: dict[str, dict[str, Any]] = {
    "plain": {},
    "temperature, min_p": {"temperature": 1.5, "min_p": 0.1},
    "top_p, top_k": {"top_p": 0.9, "top_k": 20, "repetition_penalty": 1.1},
    "sequences": {"num_return_sequences": 3},
    "beams": {"num_beams": 2},
}


def samples(generation: Generation) -> dict[str, list[list[list[int]]]]:
    """Three runs of each: two with one seed, and one with another."""
    found: dict[str, list[list[list[int]]]] = {}
    for name, arguments in SAMPLING.items():
        found[name] = []
        for seed in (5, 5, 6):
            torch.manual_seed(seed)
            found[name].append(generation(do_sample=True, **arguments))
    return found


def modes(generation: Generation) -> dict[str, Any]:
    """Tokens of a model that is in training, whether it still is afterwards, and tokens back in inference."""
    model = generation.model
    FastLanguageModel.for_training(model)
    tokens = generation()
    still = model.training
    model(**generation.one, labels=generation.one["input_ids"]).loss.backward()
    FastLanguageModel.for_inference(model)
    return {"in training": tokens, "still": still, "back": generation(), "training": model.training}


def four_bit(folder: Path, tokens: list[int]) -> dict[str, Any]:
    """NF4 with double quantization: logits along the tokens, in bf16 through Unsloth and in fp32 on the CPU.

    From a checkpoint in bf16, so that both quantize the same values.
    """
    if STACK == "cpu":
        model, tokenizer = load(str(folder.with_name("llama")), torch.bfloat16)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        exact = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        )
        return {"logits": logits_along(tokens, Generation(*load(str(folder), quantization_config=exact)))}
    generation = Generation(*load(str(folder), torch.bfloat16, load_in_4bit=True))
    return {
        "logits": logits_along(tokens, generation),
        "calls": calls(lambda: generation(max_new_tokens=12, min_new_tokens=12)),
        "launches": launches(generation, generation.one),
    }


CONVERSATION = [{"from": "human", "value": "What does the engineer repair?"}]


def templates(folder: Path) -> dict[str, Any]:
    """Prompts from Unsloth's chat templates for a ShareGPT conversation, their tokens, and what follows."""
    from datasets import Dataset
    from unsloth.chat_templates import get_chat_template, standardize_sharegpt

    [messages] = standardize_sharegpt(Dataset.from_dict({"conversations": [CONVERSATION]}))["conversations"]
    found: dict[str, Any] = {"messages": messages}
    for name in ("chatml", "llama-3.1"):
        model, tokenizer = load(str(folder))
        tokenizer = get_chat_template(tokenizer, chat_template=name)
        inputs = tokenizer.apply_chat_template(
            messages, tokenize=True, add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).to(DEVICE)
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        tokens = model.generate(**inputs, max_new_tokens=8, do_sample=False)
        found[name] = {"text": text, "prompt": inputs["input_ids"].tolist(), "tokens": tokens.tolist()}
    return found


def compiled(generation: Generation) -> list[list[int]]:
    """With a static cache and a compiled forward, as transformers documents it."""
    generation.model.forward = torch.compile(generation.model.forward)
    return generation(cache_implementation="static")


def cases_of(family: str, folder: Path) -> dict[str, Any]:
    """The results of every case of a family."""
    generation = Generation(*load(str(folder)))
    cases = {**generation.greedy(), **(generation.every() if family == "llama" else {})}
    if family == "gemma2":  # beyond its window of 256 tokens
        cases["long"] = lambda: generation(max_new_tokens=300, min_new_tokens=300)
    found = {name: case() for name, case in cases.items()}
    if STACK != "cpu":
        found["rows"] = generation.computed
        found["launches"] = [launches(generation, inputs) for inputs in (generation.one, generation.two)]
    if STACK == "unsloth":
        found |= of_unsloth(family, generation)
    return found


def main(models: Path, out: Path) -> None:
    found: dict[str, Any] = {}
    for family in FAMILIES if STACK != "mps" else ("llama", "gemma2"):
        folder = models / family if (models / family).exists() else save(family, models)
        found[family] = cases_of(family, folder)
        if STACK != "mps":
            adapted = Generation(*with_adapter(folder))
            found[family] |= {f"lora, {name}": adapted.greedy()[name]() for name in ("one", "batch", "varied")}
    if STACK == "mps":
        found["llama"]["compiled"] = compiled(Generation(*load(str(models / "llama"))))
    if STACK != "mps":
        along = {family: found[family]["one"][0][-12:] for family in ("llama", "gemma2")}
        found["half"] = {family: halves(models / family, tokens) for family, tokens in along.items()}
        found["4 bit"] = four_bit(models / "llama-bf16", along["llama"])
    if STACK == "unsloth":
        found["templates"] = templates(models / "llama")
    out.write_text(json.dumps(found))


if __name__ == "__main__":
    gc.freeze()  # Unsloth collects garbage a dozen times for each model, with all modules
    main(Path(sys.argv[1]), Path(sys.argv[2]))
