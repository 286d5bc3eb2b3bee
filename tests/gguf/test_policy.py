"""The types that a mixture gives the tensors of a model, and what is refused."""

from __future__ import annotations

import pytest

from patcher.errors import InvalidSwitch
from patcher.gguf.__main__ import parser, wish_of
from patcher.gguf.policy import MIXTURES, Architecture, Chooser, Wish, in_order, mixture_of

LAYERS = 16
PARTS = ("attn_k", "attn_output", "attn_q", "attn_v", "ffn_down", "ffn_gate", "ffn_up")


def chosen(mixture: str, width: int = 512, heads: int = 4, tied: bool = True, matrix: bool = False) -> dict[str, str]:
    """The type of every tensor of a Llama of 16 layers with rows of that width."""
    names = [f"blk.{layer}.{part}.weight" for layer in range(LAYERS) for part in PARTS]
    names += ["token_embd.weight", *([] if tied else ["output.weight"])]
    chooser = Chooser(Architecture("llama", LAYERS, heads, 2, 0), Wish(mixture, matrix), frozenset(names))
    return {name: chooser.choose(name, (64, width), "F16") for name in in_order(names)}


def test_q4_k_m_gives_more_bits_to_the_outer_layers_and_to_every_third_between() -> None:
    """Values and the second feed-forward product: Q6_K in layers 0, 1, 14, 15 and every third from layer 4."""
    kinds = chosen("Q4_K_M")
    for part in ("attn_v", "ffn_down"):
        wide = {layer for layer in range(LAYERS) if kinds[f"blk.{layer}.{part}.weight"] == "Q6_K"}
        assert wide == {0, 1, 4, 7, 10, 13, 14, 15}
    assert {kinds[f"blk.{layer}.attn_q.weight"] for layer in range(LAYERS)} == {"Q4_K"}


def test_tied_embeddings_count_as_the_output() -> None:
    """With an output tensor of its own the embedding has the mixture's type, without one it has the output's."""
    assert chosen("Q4_K_M")["token_embd.weight"] == "Q6_K"
    untied = chosen("Q4_K_M", tied=False)
    assert (untied["token_embd.weight"], untied["output.weight"]) == ("Q4_K", "Q6_K")


@pytest.mark.parametrize(("heads", "kind"), [(4, "Q3_K"), (8, "Q4_K")])
def test_values_that_four_heads_share_get_more_bits(heads: int, kind: str) -> None:
    """Q2_K: Q4_K where at least four query heads use one value head, else Q3_K."""
    assert chosen("Q2_K", heads=heads)["blk.5.attn_v.weight"] == kind


@pytest.mark.parametrize(
    ("width", "kind", "output"), [(512, "Q4_K", "Q6_K"), (576, "Q5_0", "Q8_0"), (80, "F16", "F16")]
)
def test_rows_that_blocks_do_not_divide_get_shorter_blocks(width: int, kind: str, output: str) -> None:
    """256 values per block, else 32, else F16."""
    kinds = chosen("Q4_K_M", width)
    assert (kinds["blk.2.attn_q.weight"], kinds["token_embd.weight"]) == (kind, output)


def test_norms_and_vectors_stay_as_they_are() -> None:
    """What llama.cpp reads unquantized is not touched."""
    chooser = Chooser(Architecture("llama", 2, 4, 2, 0), Wish("Q8_0"), frozenset())
    assert chooser.choose("blk.0.attn_norm.weight", (512,), "F32") == "F32"
    assert chooser.choose("blk.0.ffn_gate_inp.weight", (8, 512), "F32") == "F32"
    assert chooser.choose("blk.0.ffn_down.weight", (8, 512), "F16") == "Q8_0"


def test_layers_are_in_numerical_order() -> None:
    """Layer 10 comes after layer 2; tensors outside layers come first."""
    assert in_order(["blk.10.a", "blk.2.b", "blk.2.a", "output.weight"])[1:] == ["blk.2.a", "blk.2.b", "blk.10.a"]


def test_aliases_and_refusals_name_what_works() -> None:
    """q4_k is q4_k_m; what there is not is refused with the list of what works."""
    assert mixture_of("q4_k") == "Q4_K_M"
    with pytest.raises(InvalidSwitch, match=r"q3_k_xs.*q4_k_m"):
        mixture_of("q3_k_xs")
    with pytest.raises(InvalidSwitch, match="No tensor type Q9"):
        Wish("Q4_0", output="Q9")


@pytest.mark.parametrize(
    ("mixture", "expected"),
    [
        ("IQ1_S", {"attn_v": "Q2_K", "attn_output": "IQ2_XXS", "ffn_down": ("Q2_K", "IQ1_S"), "output": "Q5_K"}),
        ("IQ2_XS", {"attn_v": "Q2_K", "attn_output": "IQ2_XS", "ffn_down": ("Q2_K", "IQ2_XS"), "output": "Q5_K"}),
        ("IQ2_M", {"attn_v": "IQ3_S", "attn_output": "IQ3_S", "ffn_down": ("IQ3_S", "IQ2_S"), "output": "Q5_K"}),
        ("IQ3_XXS", {"attn_v": "IQ3_XXS", "attn_output": "IQ3_S", "ffn_down": ("IQ3_XXS",) * 2, "output": "Q5_K"}),
        ("IQ3_M", {"attn_v": "Q4_K", "attn_output": "Q4_K", "ffn_down": ("Q4_K", "IQ3_S"), "output": "Q6_K"}),
        ("IQ4_XS", {"attn_v": "IQ4_XS", "attn_output": "IQ4_XS", "ffn_down": ("IQ4_XS",) * 2, "output": "Q6_K"}),
        ("Q4_0", {"attn_v": "Q4_0", "attn_output": "Q4_0", "ffn_down": ("Q4_1", "Q4_0"), "output": "Q6_K"}),
    ],
)
def test_mixtures_with_an_importance_matrix(mixture: str, expected: dict[str, str | tuple[str, str]]) -> None:
    """Values, the attention's output, the second feed-forward product early and late, and the tied output."""
    kinds = chosen(mixture, matrix=True)
    down = kinds["blk.1.ffn_down.weight"], kinds["blk.2.ffn_down.weight"]
    found = {part: kinds[f"blk.5.{part}.weight"] for part in ("attn_v", "attn_output")}
    assert {**found, "ffn_down": down, "output": kinds["token_embd.weight"]} == expected
    assert kinds["blk.5.attn_k.weight"] == ("IQ2_S" if mixture == "IQ3_XXS" else MIXTURES[mixture].base)


def test_the_command_line_of_unsloths_q2_k_l_is_understood() -> None:
    """Overrides by pattern, for the output and for the embeddings, in any case of letters."""
    line = r"--tensor-type \.ffn_down=Q3_K --output-tensor-type q8_0 --token-embedding-type Q4_K a b q2_k 4"
    wish = wish_of(parser().parse_args(line.split()))
    assert wish == Wish("Q2_K", output="Q8_0", embedding="Q4_K", patterns=((r"\.ffn_down", "Q3_K"),))
    chooser = Chooser(Architecture("llama", 2, 4, 2, 0), wish, frozenset({"token_embd.weight"}))
    assert chooser.choose("blk.0.ffn_down.weight", (8, 512), "F16") == "Q3_K"
    assert chooser.choose("token_embd.weight", (8, 512), "F16") == "Q4_K"
