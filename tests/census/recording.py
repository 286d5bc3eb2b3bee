"""Runs calls through the shim and keeps their launches: ``python -m tests.census.recording MODE OUT [CALL...]``.

With MODE ``metal`` each launch runs as a shader too, which a compiler takes minutes over; with ``torch`` its shader is
only written.
"""

from __future__ import annotations

import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import torch

from tests.census import arguments, upstream
from tests.census.records import Launch, Record
from tests.census.registry import Call, chosen
from tests.tiles.registry import Make


class Recorder:
    """Stands in for a launch, runs it with both back ends, and keeps it."""

    def __init__(self, metal: bool) -> None:
        from triton.runtime.jit import JITFunction

        self.metal = metal
        self.written: dict[Any, str] = {}
        self.record = Record()
        self.plain = JITFunction.run
        self.read: set[str] = set()
        self.walked: dict[Any, frozenset[str]] = {}
        follow(self.read)
        recorder = self
        JITFunction.run = lambda kernel, *args, **kwargs: recorder.run(kernel, args, kwargs)  # type: ignore

    def run(self, kernel: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The launch, as upstream sees it. Raises as it does."""
        if kwargs.get("warmup"):
            return self._compiled(kernel, args, kwargs)
        grid = kwargs["grid"]
        named = {name: value for name, value in kwargs.items() if name not in ("grid", "warmup")}
        before = arguments.Packed(args, named)
        self.run(kernel, args, {**named, "grid": (1,), "warmup": True})
        compiled = self.plain(kernel, *args, **kwargs)
        bound = kernel._kernel.bind(args, named)
        extents = kernel._kernel.extents(grid, {**named, **bound})
        launch = Launch(upstream.name_of(kernel), extents, before, arguments.tensors((args, named)))
        if self.metal:
            self._as_shader(kernel, launch)
        else:
            launch.why = self._why_no_shader(compiled.program, named.get("num_warps", 4))
        self.record.launches.append(launch)
        return compiled

    def _compiled(self, kernel: Any, args: Any, kwargs: Any) -> Any:
        from patcher.errors import KernelNotSupported

        self.read.clear()
        try:
            compiled = self.plain(kernel, *args, **kwargs)
            if not self.read and compiled.program not in self.walked:  # an autotuner has made it
                kernel.kernel.programs.clear()
                compiled = self.plain(kernel, *args, **kwargs)
        except KernelNotSupported:
            self.record.refused |= self.read
            raise
        self.walked.setdefault(compiled.program, frozenset(self.read))
        self.record.compiled |= self.walked[compiled.program]
        return compiled

    def _why_no_shader(self, program: Any, num_warps: int) -> str:
        from patcher.tiles.on_metal.emitter import shader_of
        from patcher.tiles.on_metal.names import NotOnMetal

        key = (program, num_warps)
        if key not in self.written:
            self.written[key] = ""
            try:
                shader_of(program, num_warps, overlapping=False)
            except NotOnMetal as refusal:
                self.written[key] = str(refusal)
        return self.written[key]

    def _as_shader(self, kernel: Any, launch: Launch) -> None:
        from tests.tiles import carried

        carried.refused.clear()
        args, named = launch.before.made()
        carried.launch.run, plain = carried.run, carried.launch.run  # type: ignore
        try:
            self.plain(kernel, *args, grid=launch.grid, **named)
        finally:
            carried.launch.run = plain  # type: ignore
        launch.why = "; ".join(carried.refused)
        launch.metal = None if launch.why else arguments.tensors((args, named))


def follow(walked: set[str]) -> None:
    """Keeps the names of the functions whose source the front end reads."""
    from patcher.tiles import frontend, statements
    from patcher.tiles.source import source_of

    def read(fn: Any) -> Any:
        walked.add(upstream.name_of_function(fn))
        return source_of(fn)

    frontend.source_of = statements.source_of = read  # type: ignore


def main(mode: str, out: str, *names: str) -> None:
    """Runs the calls; see `chosen`. OUT becomes a file of ``torch.save``: records by call, the
    names of all kernels, and what calls must raise."""
    from tests.tiles import carried
    from tests.tiles.worker import prepare

    warnings.simplefilter("ignore")
    prepare("metal")
    carried.launch.run = carried.with_torch  # type: ignore
    import_calls()
    launches = {}
    recorder = Recorder(metal=mode == "metal")
    for name, found in chosen(names).items():
        launches[name] = record(recorder, found)
    torch.save((launches, sorted(upstream.KERNELS), {name: found.raises for name, found in chosen(names).items()}), out)


def record(recorder: Recorder, found: Call) -> Record:
    """What one call did."""
    recorder.record = Record()
    torch.manual_seed(0)
    try:
        found.run(Make(found.name), found.dtype)
    except Exception:  # noqa: BLE001 - the traceback is the answer
        recorder.record.error = traceback.format_exc()
    return recorder.record


def import_calls() -> None:
    """Upstream's modules, and the calls of them."""
    import importlib

    upstream.prepare()
    for file in sorted((Path(__file__).parent / "calls").glob("[a-z]*.py")):
        importlib.import_module(f"tests.census.calls.{file.stem}")


if __name__ == "__main__":
    main(*sys.argv[1:])
