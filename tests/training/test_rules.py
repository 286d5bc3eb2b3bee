"""The table of rules: complete, readable, and what docs/training-arguments.md says."""

from __future__ import annotations

import dataclasses

import pytest

from patcher.training import optimizer_names
from patcher.training.rules import RULES, Become, Keep, Refuse, as_dict, name_of, torch_before
from tests.machines import M3_MAX
from tests.process import ROOT


def _table() -> list[str]:
    """The rows of docs/training-arguments.md, from the rules."""
    rows = []
    for rule in RULES:
        if isinstance(rule.then, Become):
            outcome = "without `offload`" if callable(rule.then.value) else f"`{rule.then.value!r}`"
        elif isinstance(rule.then, Keep):
            outcome = "kept, with a note"
        else:
            assert isinstance(rule.then, Refuse)
            outcome = f"error; instead: {rule.then.instead}"
        rows.append(f"| `{rule.field}` | {rule.case} | {outcome} | {rule.reason} |")
    rows += [f"| `{name}` | {whose} |" for name, whose in optimizer_names.KEPT.items()]
    return rows


def test_documentation_lists_every_rule() -> None:
    """docs/training-arguments.md has a row for each rule and each kept optimizer, and none that is no longer true."""
    page = ROOT / "docs" / "training-arguments.md"
    rows = [line for line in page.read_text().splitlines() if line.startswith("| `")]
    assert rows == _table()


@pytest.mark.parametrize(
    ("torch", "before"),
    [("2.12.1", True), ("2.12.1+cpu", True), ("1.13", True), ("2.13.0", False), ("2.14.0.dev1", False), (None, False)],
)
def test_an_older_torch_is_told_from_a_newer_and_an_unknown_one(torch: str | None, before: bool) -> None:
    assert torch_before(dataclasses.replace(M3_MAX, torch=torch), 2, 13) is before


def test_options_are_read_as_a_dict_or_as_its_text() -> None:
    """As transformers accepts them, on the command line too; everything else holds no option."""
    assert as_dict({"offload": True}) == as_dict('{"offload": true}') == {"offload": True}
    assert as_dict(None) == as_dict("auto") == as_dict(3) == {}


def test_an_optimizer_is_named_by_text_or_member() -> None:
    from transformers.training_args import OptimizerNames

    assert name_of(OptimizerNames.ADAMW_8BIT) == name_of("adamw_8bit") == "adamw_8bit"


def test_without_values_no_rule_acts() -> None:
    """An empty configuration, as an older transformers without these fields would have it."""
    assert [rule.field for rule in RULES if rule.when({}, M3_MAX)] == []
