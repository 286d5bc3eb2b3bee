"""With the patches in place torch's operators, modules and optimizers give what they give without: a sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.same_torch import comparison
from tests.same_torch.cases import MODULE, OPERATOR, OPTIMIZER, Case
from tests.same_torch.worker import digest, outcome

EVERY, INPUTS = 60, 3
CASE = Case(OPERATOR, "add", "mps", "float32")


@pytest.mark.slow
def test_a_sample_of_torchs_databases_is_the_same_with_the_patches() -> None:
    """Every `EVERY`-th case, `INPUTS` inputs of each, and one optimizer."""
    everything = comparison.every_case()
    assert {case.kind for case in everything} == {OPERATOR, MODULE, OPTIMIZER}
    assert {case.device for case in everything} == {"cpu", "mps"}
    sample = everything[::EVERY] + [case for case in everything if case.kind == OPTIMIZER and case.name == "AdamW"]
    known = comparison.listed()
    found = comparison.differences(sample, known, INPUTS)
    assert [str(each) for each in found if known.reason(each) is None] == []
    assert known.cases.keys() & {str(case) for case in sample} <= {str(each.case) for each in found}


def test_what_a_case_raises_is_a_result_like_another() -> None:
    def results() -> Iterator[torch.Tensor]:
        yield torch.zeros(2)
        yield torch.ones(2)
        raise RuntimeError("at 0x7f00: no such kernel")

    found = list(outcome(results(), values=True))
    assert len(set(found)) == 3 and found[2] == "RuntimeError: at 0x: no such kernel"


def test_only_a_result_that_no_unpatched_run_gives_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """What changes from run to run without the patches is not their result. What is listed is run once."""
    steady, changing, known = CASE, Case(OPERATOR, "rand", "cpu", "float32"), Case(OPERATOR, "sum", "mps", "float32")
    runs, times = {False: iter("abab" * 3), True: iter("xbxa" * 3)}, Counter[Case]()

    def run(cases: list[Case], *, patched: bool, limit: int | None) -> dict[Case, comparison.Outcome]:
        times.update(cases)
        return {case: ((next(runs[patched]),) if case == changing else (str(patched),)) for case in cases}

    monkeypatch.setattr(comparison, "run", run)
    found = comparison.differences([steady, changing, known], comparison.Listed({str(known): "known"}, {}))
    assert [each.case for each in found] == [steady, known]
    assert (times[steady], times[known]) == (2 * comparison.RUNS, 2)
    assert str(found[0]) == "operator add mps float32: result 1 is 'True' with the patches and 'False' without"


def test_what_is_listed_has_a_reason(tmp_path: Path) -> None:
    file = tmp_path / "differences.toml"
    file.write_text('[[difference]]\ncases = ["operator add mps float32"]\nreason = " "\n')
    with pytest.raises(ValueError, match="a reason is missing"):
        comparison.listed(file)
    known = comparison.listed()
    assert all({**known.cases, **known.refusals}.values())


def test_a_difference_is_listed_by_its_case_or_by_what_torch_refuses_without_the_patches() -> None:
    known = comparison.Listed({str(CASE): "by case"}, {"to float64": "by refusal"})
    other = Case(OPERATOR, "sum", "mps", "float32")
    refused = ("same", "TypeError: Cannot convert to float64")
    assert known.reason(comparison.Difference(CASE, ("a",), ("b",))) == "by case"
    assert known.reason(comparison.Difference(other, refused, ("same", "numbers"))) == "by refusal"
    assert known.reason(comparison.Difference(other, ("other", *refused[1:]), ("same", *refused[1:]))) is None


def test_results_that_differ_in_one_thing_have_different_digests() -> None:
    x = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    others = (x.double(), x.T, x.T.contiguous().T, x + 1e-7, -x, x.view(4), x.to_sparse())
    results = [digest(x), *(digest(other) for other in others), digest([x, 1]), digest([x, 2])]
    assert len(set(results)) == len(results)
    assert digest(x) == digest(x.clone()) and digest(x, values=False) == digest(x + 1, values=False)
