"""Runs cases in one process: ``python -m tests.tiles.worker MODE OUT [CASE...]``, all by default.

MODE is ``interpreted``, ``compiled``, ``shim`` (with torch operators), or ``metal`` (as shaders on the simulated Mac).
``metal-checked`` checks races and bounds, in ``metal-backwards`` threads take turns in the opposite order, and in
``metal-admitted`` each launch is compared with torch as first launches are. ``::3`` in the place of cases is every
third one. Cases of files that are named run too.

``interpreted`` and ``compiled`` need Triton on the path: the one runs kernels in Triton's interpreter, the other only
asks Triton's compiler whether they are kernels. OUT becomes a file of ``torch.save``: an `Answer`, as a dict, for each
case. A name that ends in .py is a file of more cases.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import time
import traceback
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from tests.tiles.registry import CASES, Case, Make

PROGRAMS = sorted(file.stem for file in (Path(__file__).parent / "programs").glob("[a-z]*.py"))


@dataclass
class Answer:
    """What became of a case.

    Attributes:
        outputs: by name, what the kernel wrote.
        expected: by name, what torch computed, where the case has no answer from the interpreter.
        error: the traceback of a case that raised.
        not_run: why the case was left out.
        rtol: the relative tolerance of the case.
        atol: the absolute tolerance of the case.
        seconds: how long it took.
        refused: why launches of it ran with torch and not as Metal shaders.
        ran: which kernels ran as Metal shaders.
    """

    outputs: dict[str, torch.Tensor] = field(default_factory=dict)
    expected: dict[str, torch.Tensor] = field(default_factory=dict)
    error: str = ""
    not_run: str = ""
    rtol: float = 0.0
    atol: float = 0.0
    seconds: float = 0.0
    refused: tuple[str, ...] = ()
    ran: tuple[str, ...] = ()


def main(mode: str, out: str, *names: str) -> None:
    """Runs the cases and writes the file. A file of programs that cannot be imported is an answer under its name."""
    warnings.simplefilter("ignore")
    prepare(mode)
    answers: dict[str, Answer] = {}
    more = {Path(name).stem: name for name in names if name.endswith(".py")}
    for program in (*PROGRAMS, *more):
        try:
            _import_file(program, more[program]) if program in more else _import_program(program)
        except Exception:  # noqa: BLE001 - the traceback is the answer
            answers[program] = Answer(error=traceback.format_exc())
    step = next((int(name[2:]) for name in names if name.startswith("::")), 0)
    for number, (name, found) in enumerate(CASES.items()):
        if (step and number % step == 0) or len(names) == len(more) or _called(name) & {*names, *more}:
            answers[name] = _on_metal(found) if mode.startswith("metal") else answer(found, mode)
    torch.save({name: asdict(found) for name, found in answers.items()}, out)


def _called(name: str) -> set[str]:
    """What names a case: its own, without its parameter, and its file's."""
    return {name, name.partition("[")[0], name.partition(".")[0]}


def _import_program(name: str) -> None:
    importlib.import_module(f"tests.tiles.programs.{name}")


def _import_file(name: str, file: str) -> None:
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])


def prepare(mode: str) -> None:
    """Makes ``import triton`` give the shim, completes the interpreter, or lets launches compile."""
    if mode == "interpreted":
        from tests.oracle.interpreter import complete_bfloat16

        complete_bfloat16()
    elif mode == "compiled":
        from tests.tiles.compiler import launches_compile

        launches_compile()
    else:
        if mode.startswith("metal"):
            from tests.tiles.carried import launches_are_carried

            launches_are_carried(mode)
        from patcher.changes.triton.shim import CHANGES
        from patcher.engine.imports import Finder

        finder = Finder()
        finder.shim(CHANGES[0])
        finder.install()


def answer(found: Case, mode: str) -> Answer:
    """Runs one case. What the interpreter cannot do is left out there; what is compiled has no results."""
    if mode == "interpreted" and found.instead:
        return Answer(not_run=found.instead)
    began = time.perf_counter()
    try:
        result = found.run(Make(found.name), *found.parameters)
    except Exception as error:  # noqa: BLE001 - the traceback is the answer
        if mode == "compiled" and isinstance(error, AssertionError):  # of the case, about outputs
            return Answer(seconds=time.perf_counter() - began)
        return Answer(error=traceback.format_exc(), seconds=time.perf_counter() - began)
    outputs, expected = result if found.instead else (result, {})
    seconds = time.perf_counter() - began
    if mode == "compiled":
        return Answer(seconds=seconds)
    return Answer(_named(outputs), _named(expected), rtol=found.rtol, atol=found.atol, seconds=seconds)


def _on_metal(found: Case) -> Answer:
    from tests.tiles import carried

    carried.refused.clear()
    carried.ran.clear()
    result = answer(found, "metal")
    result.refused, result.ran = tuple(carried.refused), tuple(carried.ran)
    return result


def _named(outputs: Any) -> dict[str, torch.Tensor]:
    if isinstance(outputs, dict):
        return outputs
    if isinstance(outputs, (tuple, list)):
        return {str(place): tensor for place, tensor in enumerate(outputs)}
    return {"out": outputs}


if __name__ == "__main__":
    main(*sys.argv[1:])
