"""Which type each tensor of a quantized GGUF file gets: the mixtures of llama.cpp.

A mixture has a type for most tensors, and gives more bits to the tensors whose error shows most: the values of the
attention, the second product of the feed-forward block, the output, and of those the first and last layers. The rules
are those of llama.cpp's ``llama-quantize`` (b11434, src/llama-quant.cpp: llama_tensor_get_type_impl,
tensor_type_fallback, tensor_allows_quantization, tensor_requires_imatrix).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from patcher.errors import InvalidSwitch


@dataclass(frozen=True)
class Mixture:
    """A row of llama-quantize's list: its number in ``general.file_type`` and the type of most tensors."""

    number: int
    base: str


MIXTURES: Mapping[str, Mixture] = {
    "F32": Mixture(0, "F32"),
    "F16": Mixture(1, "F16"),
    "Q4_0": Mixture(2, "Q4_0"),
    "Q4_1": Mixture(3, "Q4_1"),
    "Q8_0": Mixture(7, "Q8_0"),
    "Q5_0": Mixture(8, "Q5_0"),
    "Q5_1": Mixture(9, "Q5_1"),
    "Q2_K": Mixture(10, "Q2_K"),
    "Q3_K_S": Mixture(11, "Q3_K"),
    "Q3_K_M": Mixture(12, "Q3_K"),
    "Q3_K_L": Mixture(13, "Q3_K"),
    "Q4_K_S": Mixture(14, "Q4_K"),
    "Q4_K_M": Mixture(15, "Q4_K"),
    "Q5_K_S": Mixture(16, "Q5_K"),
    "Q5_K_M": Mixture(17, "Q5_K"),
    "Q6_K": Mixture(18, "Q6_K"),
    "IQ2_XXS": Mixture(19, "IQ2_XXS"),
    "IQ2_XS": Mixture(20, "IQ2_XS"),
    "IQ3_XXS": Mixture(23, "IQ3_XXS"),
    "IQ1_S": Mixture(24, "IQ1_S"),
    "IQ4_NL": Mixture(25, "IQ4_NL"),
    "IQ3_S": Mixture(26, "IQ3_S"),
    "IQ3_M": Mixture(27, "IQ3_S"),
    "IQ2_S": Mixture(28, "IQ2_XS"),
    "IQ2_M": Mixture(29, "IQ2_S"),
    "IQ4_XS": Mixture(30, "IQ4_XS"),
    "IQ1_M": Mixture(31, "IQ1_M"),
    "BF16": Mixture(32, "BF16"),
}
ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}
PLAIN = frozenset({"F32", "F16", "BF16"})
LOW = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS")
"""Tensor types that are garbage without an importance matrix, but for the embedding and the output."""
BLOCK = dict.fromkeys(("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL"), 32) | dict.fromkeys(
    ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ3_S", "IQ4_XS", *LOW), 256
)
"""Values per block."""
NARROWER = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"} | dict.fromkeys(
    ("IQ3_S", "IQ4_XS", *LOW), "IQ4_NL"
)
"""What replaces a type of 256-value blocks in a row whose length they do not divide."""

KEPT = re.compile(
    r"_norm\.weight|ffn_gate_inp\.weight|ffn_gate_tid2eid\.weight|altup|laurel|per_layer_model_proj"
    r"|^position_embd\.weight$|^token_types\.weight$|ssm_conv1d|shortconv\.conv\.weight|indexer\.[kq]_proj\.weight"
    r"|time_mix_(first|w[012]|v[012]|a[012]|g[12]|decay_w[12]|lerp_fused)\.weight|attn_rel_b\.weight"
    r"|\.position_embd|sam\.pos_embd|sam\.neck\.|sam\.net_|\.rel_pos|\.patch_embd|\.patch_merger"
    r"|a\.rvq\.codebook|mm\.a\.code_embd"
)
"""Tensors that stay as they are: small, or read by code that has no kernel for blocks."""

ROLES = (
    ("embedding", r"^(per_layer_)?token_embd\.weight$"),
    ("output", r"^output\.weight$"),
    ("qkv", r"attn_qkv\.weight"),
    ("kv_b", r"attn_kv_b\.weight"),
    ("value", r"attn_v\.weight"),
    ("key", r"attn_k\.weight"),
    ("query", r"attn_q\.weight"),
    ("projection", r"attn_output\.weight"),
    ("up", r"ffn_up"),
    ("gate", r"ffn_gate"),
    ("down", r"ffn_down"),
)
VALUES = frozenset({"value", "qkv", "kv_b"})
ONE_BIT = frozenset({"IQ1_S", "IQ1_M"})
TWO_BITS = frozenset({"IQ2_XXS", "IQ2_XS"})
WIDE_TWO_BITS = frozenset({"IQ2_S", "IQ2_M"})
LOWEST = ONE_BIT | TWO_BITS | WIDE_TWO_BITS
"""Mixtures with rules of their own."""


@dataclass(frozen=True)
class Architecture:
    """What of a model the rules ask for, from its metadata."""

    name: str
    layers: int
    heads: int
    kv_heads: int
    experts: int

    @property
    def sharing(self) -> int:
        """Query heads per key-value head."""
        return self.heads // self.kv_heads if self.kv_heads else 0

    @property
    def is_70b(self) -> bool:
        return self.layers == 80 and self.sharing > 1


@dataclass(frozen=True)
class Wish:
    """What was asked for: a mixture, exceptions from its rules, and whether there is an importance matrix."""

    mixture: str
    matrix: bool = False
    output: str | None = None
    embedding: str | None = None
    patterns: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        for kind in filter(None, (self.output, self.embedding, *(kind for _, kind in self.patterns))):
            if kind not in BLOCK and kind not in PLAIN:
                raise InvalidSwitch(
                    f"No tensor type {kind} here. Types: {', '.join(sorted(BLOCK | dict.fromkeys(PLAIN, 1)))}."
                )


def mixture_of(name: str) -> str:
    """The mixture's own name for a spelling such as ``q4_k``; refused by name where there is none."""
    upper = name.upper()
    found = ALIASES.get(upper, upper)
    if found not in MIXTURES:
        raise InvalidSwitch(
            f"No GGUF quantization {name!r} without llama.cpp's own llama-quantize. Here: "
            f"{', '.join(mixture.lower() for mixture in MIXTURES)}. For others put a llama.cpp in the folder that "
            "UNSLOTH_LLAMA_CPP_PATH names (brew install llama.cpp has the binary)."
        )
    return found


def role_of(name: str) -> str:
    """What a tensor does, from its name; "other" for what no rule names."""
    return next((role for role, pattern in ROLES if re.search(pattern, name)), "other")


def in_order(names: Iterable[str]) -> list[str]:
    """Names as llama.cpp orders tensors: those outside layers first, then by layer, each by name."""

    def key(name: str) -> tuple[int, str]:
        layer = re.match(r"blk\.(\d+)\.", name)
        return (int(layer[1]) if layer else -1, name)

    return sorted(names, key=key)


def _more_bits(layer: int, layers: int) -> bool:
    """True for the first eighth of the layers, the last, and every third between."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


@dataclass
class Chooser:
    """Chooses tensor by tensor, in the order of `in_order`: how many of a role came before decides too."""

    architecture: Architecture
    wish: Wish
    names: frozenset[str]
    seen: dict[str, int] = field(default_factory=dict)

    def choose(self, name: str, shape: tuple[int, ...], stored: str) -> str:
        """The type of a tensor, from its name, its shape as numpy has it (row length last) and its stored type."""
        if len(shape) < 2 or not name.endswith("weight") or KEPT.search(name):
            return stored
        role, base = role_of(name), MIXTURES[self.wish.mixture].base
        fixed = {"embedding": self.wish.embedding, "output": self.wish.output}.get(role)
        if fixed:
            return fixed
        if base in PLAIN:
            return base
        manual = next((kind for pattern, kind in self.wish.patterns if re.search(pattern, name)), None)
        return _fitting(manual or self._by_rule(name, role, shape[-1]), shape[-1])

    def _by_rule(self, name: str, role: str, width: int) -> str:
        mixture = self.wish.mixture
        base = MIXTURES[mixture].base
        if role == "output" or (role == "embedding" and "output.weight" not in self.names):
            return self._of_output(base, width)
        if role == "embedding":
            return _of_embedding(mixture, base)
        if mixture in LOWEST:
            return self._of_lowest(mixture, base, role)
        if role in VALUES:
            return self._of_values(mixture, base)
        if role == "key" and self.architecture.experts == 8:
            return "Q8_0"
        if role in ("key", "query") and mixture == "IQ3_XXS":
            return "IQ2_S"
        if role == "down":
            return self._of_down(mixture, base, name)
        if role == "projection":
            return self._of_projection(mixture, base)
        return base

    def _count(self, role: str) -> int:
        """How many tensors of this role came before; counts this one."""
        before = self.seen.get(role, 0)
        self.seen[role] = before + 1
        return before

    def _of_output(self, base: str, width: int) -> str:
        if self.wish.output:
            return self.wish.output
        if self.architecture.name == "falcon" or width % BLOCK[base]:
            return "Q8_0"
        if self.wish.mixture in LOWEST or self.wish.mixture == "IQ3_XXS":
            return "Q5_K"
        return base if base == "Q8_0" else "Q6_K"

    def _of_lowest(self, mixture: str, base: str, role: str) -> str:
        experts, wider = self.architecture.experts, "IQ3_S" if mixture in WIDE_TWO_BITS else "Q2_K"
        if role in VALUES:
            return "Q4_K" if self.architecture.sharing >= 4 or experts >= 4 else wider
        if role == "key" and experts == 8:
            return "Q4_K"
        if role == "down":
            return wider if self._count("down") < self.architecture.layers // 8 else base
        if role == "projection":
            if experts == 8:
                return "Q5_K"
            return "IQ2_XXS" if mixture in ONE_BIT else wider if mixture in WIDE_TWO_BITS else base
        return base

    def _of_values(self, mixture: str, base: str) -> str:
        index = self._count("value")
        total = sum(role_of(name) in VALUES for name in self.names)
        shared = self.architecture.sharing >= 4
        rules: dict[str, Callable[[], str]] = {
            "Q2_K": lambda: "Q4_K" if shared else "Q3_K",
            "IQ3_XXS": lambda: "Q4_K" if shared else base if self.wish.matrix else "IQ3_S",
            "IQ3_S": lambda: "Q4_K" if shared else base,
            "IQ3_M": lambda: "Q4_K",
            "Q3_K_M": lambda: "Q5_K" if index < 2 else "Q4_K",
            "Q3_K_L": lambda: "Q5_K",
            "Q4_K_M": lambda: "Q6_K" if _more_bits(index, total) else base,
            "Q5_K_M": lambda: "Q6_K" if _more_bits(index, total) else base,
            "Q4_K_S": lambda: "Q5_K" if index < 4 else base,
            "IQ4_NL": lambda: "Q5_K" if shared else base,
            "IQ4_XS": lambda: "Q5_K" if shared else base,
        }
        chosen = rules[mixture]() if mixture in rules else base
        if self.architecture.is_70b and chosen in ("Q3_K", "Q4_K"):
            chosen = "Q5_K"
        return "Q8_0" if self.architecture.experts == 8 else chosen

    def _of_down(self, mixture: str, base: str, name: str) -> str:
        layers, layer = self.architecture.layers, self._count("down")
        if self.architecture.experts > 1:
            layer = int(name.split(".")[1])
        falcon, more = self.architecture.name == "falcon", _more_bits(layer, layers)
        early, first, matrix = layer < layers // 8, layer < layers // 16, self.wish.matrix
        rules: dict[str, Callable[[], str]] = {
            "Q2_K": lambda: "Q3_K",
            "Q3_K_M": lambda: "Q5_K" if first else "Q4_K" if not falcon or more else "Q3_K",
            "Q3_K_L": lambda: "Q4_K" if falcon else "Q5_K",
            "Q4_K_M": lambda: ("Q6_K" if first else "Q5_K" if more else base) if falcon else "Q6_K" if more else base,
            "Q4_K_S": lambda: "Q5_K" if early and not falcon else base,
            "Q5_K_M": lambda: "Q6_K" if more else base,
            "IQ4_NL": lambda: "Q5_K" if early and not matrix else base,
            "IQ4_XS": lambda: "Q5_K" if early and not matrix else base,
            "IQ3_XXS": lambda: base if matrix else "Q4_K" if early else "Q3_K",
            "IQ3_M": lambda: "Q4_K" if early or (more and self.architecture.experts == 8) else base,
            "Q4_0": lambda: "Q4_1" if early and matrix else base,
            "Q5_0": lambda: "Q5_1" if early and matrix else base,
        }
        return rules[mixture]() if mixture in rules else base

    def _of_projection(self, mixture: str, base: str) -> str:
        if self.architecture.name == "falcon":
            return "Q4_K" if mixture == "Q3_K_L" else base
        if self.architecture.experts == 8:
            wide = {"Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M", "IQ3_XXS", "IQ3_S", "IQ3_M", "IQ4_NL", "IQ4_XS"}
            return "Q5_K" if mixture in wide else base
        wider = {"Q2_K": "Q3_K", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K", "IQ3_XXS": "IQ3_S", "IQ3_M": "Q4_K"}
        return wider.get(mixture, base)


def _of_embedding(mixture: str, base: str) -> str:
    """Where the output has a tensor of its own."""
    if mixture in ONE_BIT | TWO_BITS:
        return "Q2_K"
    return "IQ3_S" if mixture in WIDE_TWO_BITS or mixture == "IQ3_XXS" else base


def needs_matrix(name: str, kind: str) -> bool:
    """True where codes of that type are garbage without an importance matrix."""
    return kind in LOW and role_of(name) not in ("embedding", "output")


def _fitting(kind: str, width: int) -> str:
    """The type itself where its blocks divide the row, else the one with shorter blocks, else F16."""
    if kind in PLAIN or width % BLOCK[kind] == 0:
        return kind
    shorter = NARROWER.get(kind, kind)
    return shorter if width % BLOCK[shorter] == 0 else "F16"
