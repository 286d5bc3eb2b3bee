"""With the patches in place torch's operators, modules and optimizers give what they give without: a sample."""

from __future__ import annotations

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
    found = comparison.differences(sample, INPUTS)
    assert {str(each.case) for each in found} == comparison.listed().keys() & {str(case) for case in sample}, found


def test_what_a_case_raises_is_a_result_like_another() -> None:
    def results() -> Iterator[torch.Tensor]:
        yield torch.zeros(2)
        yield torch.ones(2)
        raise RuntimeError("at 0x7f00: no such kernel")

    found = list(outcome(results(), values=True))
    assert len(set(found)) == 3 and found[2] == "RuntimeError: at 0x: no such kernel"


def test_only_a_result_that_no_unpatched_run_gives_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """What changes from run to run without the patches is not their result."""
    steady, changing = CASE, Case(OPERATOR, "rand", "cpu", "float32")
    runs = {False: iter("abab" * 3), True: iter("xbxa" * 3)}

    def run(cases: list[Case], *, patched: bool, limit: int | None) -> dict[Case, comparison.Outcome]:
        return {case: ((next(runs[patched]),) if case == changing else (str(patched),)) for case in cases}

    monkeypatch.setattr(comparison, "run", run)
    found = comparison.differences([steady, changing])
    assert [each.case for each in found] == [steady]
    assert str(found[0]) == "operator add mps float32: result 1 is 'True' with the patches and 'False' without"


def test_a_listed_case_has_a_reason(tmp_path: Path) -> None:
    file = tmp_path / "differences.toml"
    file.write_text('[[difference]]\ncases = ["operator add mps float32"]\nreason = " "\n')
    with pytest.raises(ValueError, match="a reason is missing"):
        comparison.listed(file)
    assert all(comparison.listed().values())


def test_results_that_differ_in_one_thing_have_different_digests() -> None:
    x = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    others = (x.double(), x.T, x.T.contiguous().T, x + 1e-7, -x, x.view(4), x.to_sparse())
    results = [digest(x), *(digest(other) for other in others), digest([x, 1]), digest([x, 2])]
    assert len(set(results)) == len(results)
    assert digest(x) == digest(x.clone()) and digest(x, values=False) == digest(x + 1, values=False)
