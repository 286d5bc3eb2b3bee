"""Every kernel of ``programs/`` gives through the shim what it gives in Triton's interpreter."""

from __future__ import annotations

import ast
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.oracle.client import TRITON
from tests.process import ROOT, run_module
from tests.tiles import generator
from tests.tiles.registry import case

pytestmark = pytest.mark.slow

Answers = dict[str, dict[str, Any]]

GENERATED = "generated"
"""The name of the file of kernels written at random."""
RANDOM = 60
"""How many these are."""

INTEGER = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def declared() -> list[str]:
    """The functions of ``programs/`` that are cases, read and not imported: this process has no Triton."""
    names = []
    for file in sorted((Path(__file__).parent / "programs").glob("[a-z]*.py")):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef) and any(_is_case(mark) for mark in node.decorator_list):
                names.append(f"{file.stem}.{node.name}")
    return names


def _is_case(mark: ast.expr) -> bool:
    function = mark.func if isinstance(mark, ast.Call) else mark
    return isinstance(function, ast.Name) and function.id == case.__name__


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answers]:
    """What all cases gave: in Triton's interpreter, in its compiler, and through the shim, in a process each."""
    folder = tmp_path_factory.mktemp("tiles")
    assert TRITON.is_dir(), f"real Triton is expected in {TRITON}: run make venv"
    generated = folder / f"{GENERATED}.py"
    generated.write_text(generator.programs(RANDOM, seed=3))
    path = os.pathsep.join((str(ROOT), str(TRITON)))
    environments: dict[str, Any] = {
        "interpreted": {"PYTHONPATH": path, "TRITON_INTERPRET": "1"},
        "compiled": {"PYTHONPATH": path, "TRITON_INTERPRET": "0"},
        "shim": {},
    }

    def run(mode: str) -> Answers:
        run_module("tests.tiles.worker", mode, folder / mode, generated, **environments[mode])
        found: Answers = torch.load(folder / mode)
        return found

    with ThreadPoolExecutor(2) as threads:
        return dict(zip(environments, threads.map(run, environments), strict=True))


def test_all_ran_the_same_cases(answers: dict[str, Answers]) -> None:
    """And these are the ones that the files declare."""
    assert answers["interpreted"].keys() == answers["shim"].keys() == answers["compiled"].keys()
    names = {name.partition("[")[0] for name in answers["shim"] if not name.startswith(f"{GENERATED}.")}
    assert names == set(declared())


def test_every_kernel_is_one(answers: dict[str, Answers]) -> None:
    """Triton's compiler takes them all but those for which Triton is too new, which the interpreter refuses too."""
    refused = {name: found["error"] for name, found in answers["compiled"].items() if found["error"]}
    unexpected = {name: told for name, told in refused.items() if not answers["interpreted"][name]["not_run"]}
    assert not unexpected, "\n".join(f"{name}: {told}" for name, told in unexpected.items())
    assert len(refused) < len(answers["compiled"]) // 20


@pytest.mark.parametrize("name", declared())
def test_case(answers: dict[str, Answers], name: str) -> None:
    """Bit for bit, or within the tolerance that the case gives a reason for."""
    variants = [variant for variant in answers["interpreted"] if variant.partition("[")[0] == name]
    assert variants
    wrong = {variant: told for variant in variants if (told := difference(answers, variant))}
    assert not wrong, "\n".join(f"{variant}: {told}" for variant, told in wrong.items())


def test_kernels_written_at_random(answers: dict[str, Answers]) -> None:
    """Bit for bit."""
    names = [name for name in answers["interpreted"] if name.startswith(f"{GENERATED}.")]
    assert len(names) == RANDOM
    wrong = {name: told for name in names if (told := difference(answers, name))}
    assert not wrong, "\n".join(f"{name}: {told}" for name, told in wrong.items())


def difference(answers: dict[str, Answers], variant: str) -> str:
    """What is wrong with a case's answer; empty if nothing is."""
    expected, found = answers["interpreted"][variant], answers["shim"].get(variant)
    if expected["error"]:
        return f"in the interpreter: {expected['error']}"
    if found is None or found["error"]:
        return "not run" if found is None else found["error"]
    right = found["expected"] if expected["not_run"] else expected["outputs"]
    if right.keys() != found["outputs"].keys():
        return f"outputs {sorted(found['outputs'])} instead of {sorted(right)}"
    told = {name: unlike(found["outputs"][name], right[name], found["rtol"], found["atol"]) for name in right}
    return "; ".join(f"output {name}: {text}" for name, text in told.items() if text)


def unlike(found: torch.Tensor, right: torch.Tensor, rtol: float, atol: float) -> str:
    """How two tensors differ; empty if they agree. NaN agrees with NaN; 0 and -0 differ where the tolerance is 0."""
    if found.dtype != right.dtype or found.shape != right.shape:
        return f"{found.dtype} of {tuple(found.shape)} instead of {right.dtype} of {tuple(right.shape)}"
    wrong = (bits(found) != bits(right)) & ~(torch.isnan(found) & torch.isnan(right))
    if rtol or atol:
        a, b = found.to(torch.float64), right.to(torch.float64)
        wrong &= ~(((a - b).abs() <= atol + rtol * b.abs()) & b.isfinite())
    if not wrong.any():
        return ""
    places = wrong.nonzero()
    first = tuple(places[0].tolist())
    told = f"{len(places)} of {wrong.numel()} elements, first at {first}"
    return f"{told}: {found[first].item()!r} instead of {right[first].item()!r}"


def bits(x: torch.Tensor) -> torch.Tensor:
    """The elements' bits, as whole numbers."""
    return x.contiguous().view(INTEGER[x.element_size()])


@pytest.mark.parametrize("tolerance", [0.0, 1e-3])
def test_a_difference_is_seen(tolerance: float) -> None:
    """One element, one dtype, one NaN too many."""
    right = torch.tensor([1.0, float("nan"), float("inf"), 0.0])
    assert not unlike(right.clone(), right, tolerance, tolerance)
    for place, value in ((0, 1.01), (0, float("nan")), (1, 3.0), (2, 3e38), (2, float("-inf"))):
        found = right.clone()
        found[place] = value
        assert f"first at ({place},)" in unlike(found, right, tolerance, tolerance)
    assert "float64" in unlike(right.double(), right, tolerance, tolerance)
    assert bool(unlike(torch.tensor([-0.0]), torch.tensor([0.0]), tolerance, 0)) is (tolerance == 0.0)
