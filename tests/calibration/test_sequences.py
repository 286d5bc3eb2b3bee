"""The allocator's sequences: what they say, and that they tell every rule of the allocators apart."""

from __future__ import annotations

import pytest

from patcher.calibration import sequences
from patcher.calibration.sequences import LONGEST, SEQUENCES
from tests.calibration.allocator_model import MODELS, carried_out, changed

CASES = [case for case in SEQUENCES if case != LONGEST]

RULES = {
    "2.13": {
        "256 bytes": ("256) * 256", "512) * 512"),
        "pages": ("// PAGE) * PAGE", "// 1) * 1"),
        "heaps of 8 MiB": ("total = 8 * MIB", "total = 16 * MIB"),
        "heaps of 32 MiB": ("total = 32 * MIB", "total = 64 * MIB"),
        "heaps of 1 GiB": ("total = 1024 * MIB", "total = 512 * MIB"),
        "small is up to 1 MiB": ("size <= MIB", "size < MIB"),
        "large is below 10 MiB": ("size < 10 * MIB", "size <= 10 * MIB"),
        "alone is from 512 MiB": ("size < 512 * MIB", "size <= 512 * MIB"),
        "alone in steps of 2 MiB": ("(2 * MIB)) * 2 * MIB", "MIB) * MIB"),
        "reused if 32 MiB too long": ("+ 32 * MIB", "+ 31 * MIB"),
        "not reused if longer": ("+ 32 * MIB", "+ 33 * MIB"),
        "broken up": ("remove_empty_heap=False)", "remove_empty_heap=True)"),
        "shortest buffer first": (
            "min(fitting, key=lambda buffer: (buffer.size",
            "max(fitting, key=lambda buffer: (buffer.size",
        ),
        "fullest heap first": (
            "min(fitting, key=lambda heap: (heap.available()",
            "max(fitting, key=lambda heap: (heap.available()",
        ),
        "the heap does not count": ("self.driver + size > self.high", "self.driver + max(size, 2**30) > self.high"),
        "longest go first": ("reverse=True", "reverse=False"),
        "measured beyond the soft limit": ("512 * MIB and not pressure", "512 * MIB"),
        "old ones are collected": ("if pressure and size < pool.available_size()", "if False"),
        "split heaps stay": ("not buffer.heap.is_split", "True"),
        "age": ("gc_count >= threshold", "gc_count > threshold"),
    },
    "2.14": {
        "256 bytes": ("256) * 256", "512) * 512"),
        "32 steps": ("// 32, PAGE)", "// 16, PAGE)"),
        "no step into another kind": ("crosses or", ""),
        "rests from 1 MiB": ("Pool(True, MIB)", "Pool(True, MIB // 2)"),
        "no rests below 1 MiB": ("Pool(True, MIB)", "Pool(True, 2 * MIB)"),
        "small rests": ("Pool(False, 256)", "Pool(False, MIB)"),
        "heaps of 8 MiB": ("total = 8 * MIB", "total = 16 * MIB"),
        "heaps of 32 MiB": ("total = 32 * MIB", "total = 64 * MIB"),
        "heaps of 1 GiB": ("total = 1024 * MIB", "total = 512 * MIB"),
        "small is up to 1 MiB": ("size <= MIB", "size < MIB"),
        "large is below 10 MiB": ("size < 10 * MIB", "size <= 10 * MIB"),
        "alone is from 512 MiB": ("size < 512 * MIB", "size <= 512 * MIB"),
        "alone in steps of 2 MiB": ("(2 * MIB)) * 2 * MIB", "(4 * MIB)) * 4 * MIB"),
        "a cached buffer first": ("if block.number:", "if False:"),
        "merging": ("return self.coalesce_free_blocks(pool, size)", "return None"),
        "splitting": ("if remainder >= pool.min_split:", "if False:"),
        "oldest heaps go first": ("for heap in list(pool.heaps):", "for heap in pool.heaps[::-1]:"),
        "no more than needed": ("released < target and heap", "heap"),
        "the heap does not count": ("self.driver + size > self.high", "self.driver + max(size, 2**30) > self.high"),
        "measured beyond the soft limit": ("512 * MIB and not pressure", "512 * MIB"),
        "old ones are collected": ("if block is None and pressure and", "if False and"),
        "heaps with something in them stay": ("if released < target and heap.is_free()", "if released < target"),
    },
}  # fmt: skip
"""Of each release: a rule, the text that has it in the model, and what stands there where it is another."""


@pytest.mark.parametrize(
    ("text", "length"), [("1", 1), ("1M - 256", 2**20 - 256), ("2G + 100M", 2**31 + 100 * 2**20), ("600K", 600 * 1024)]
)
def test_lengths(text: str, length: int) -> None:
    """Sums of numbers with units."""
    assert sequences.length_of(text) == length


def test_steps_are_of_the_four_kinds() -> None:
    """A misspelt step would be one more limit."""
    for case in CASES:
        for step in SEQUENCES[case]:
            name, _, length = step.partition(" = ")
            assert length or step == "empty" or step.split()[0] in ("free", "allow"), step
            assert not length or (len(name) == 1 and sequences.length_of(length) > 0), step


@pytest.mark.parametrize("case", CASES)
def test_each_sequence_tells_the_releases_apart(case: str) -> None:
    """Each has a step after which 2.13 and 2.14 hold something else."""
    assert carried_out(case, MODELS["2.13"]) != carried_out(case, MODELS["2.14"])


@pytest.mark.slow
@pytest.mark.parametrize(("torch", "rule"), [(torch, rule) for torch, rules in RULES.items() for rule in rules])
def test_a_changed_rule_is_told(torch: str, rule: str) -> None:
    """With one rule of an allocator changed, some sequence holds something else: none is there for nothing."""
    other = changed(MODELS[torch], *RULES[torch][rule])
    assert any(carried_out(case, MODELS[torch]) != carried_out(case, other) for case in CASES)


def test_the_soft_limit_is_set_before_the_process_starts() -> None:
    """As the fraction that is 1 GiB and 64 MiB of what is recommended."""
    found = sequences.variables("soft limit", {"recommended_max_memory": 2**33})
    assert found == {"PYTORCH_MPS_LOW_WATERMARK_RATIO": repr((2**30 + 2**26) / 2**33)}
    assert sequences.variables("hard limit", {"recommended_max_memory": 2**33}) == {}
