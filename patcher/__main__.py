"""``python -m patcher``: runs an unmodified script on the Mac's GPU, and reports what is patched."""

from __future__ import annotations

import contextlib
import importlib
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from patcher import Handle, children, environment, patch_for_mac
from patcher.engine.model import State
from patcher.engine.report import Report
from patcher.errors import PatcherError

SIMULATE = "UNSLOTH_SIMULATE_MAC"
WRONG_USE = 2

_EXCEPTHOOK = sys.excepthook
"""The hook that a program finds under ``python``; typer puts its own in place."""

app = typer.Typer(
    name="patch-for-mac",
    help="Runs a CUDA fine-tuning script, unmodified, on a Mac's GPU.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Simulate = Annotated[
    str | None,
    typer.Option(metavar="MAC", help="A Mac to simulate on Linux, such as 'M3 Max 36GB', or 1 for the default one."),
]


Without = Annotated[
    str | None,
    typer.Option(
        metavar="A,B", help="Changes to leave out: libraries, modules, targets or globs, as `report` names them."
    ),
]


@app.command(context_settings={"allow_interspersed_args": False})
def run(
    target: Annotated[str, typer.Argument(metavar="SCRIPT", help="A script, folder or zip file; - is standard input.")],
    arguments: Annotated[list[str] | None, typer.Argument(metavar="ARGS", help="Passed to it untouched.")] = None,
    module: Annotated[bool, typer.Option("-m", help="SCRIPT is the name of a module.")] = False,
    simulate: Simulate = None,
    without: Without = None,
    strict: Annotated[bool, typer.Option(help="Stop when a change that training needs cannot be made.")] = True,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print every change as it is applied.")] = False,
) -> None:
    """Patches, then runs SCRIPT as python does, and Python that it starts too. Options of ours stand before SCRIPT."""
    from patcher.run import run_module, run_path

    with _simulating(simulate), _leaving_out(without):
        handle = _patch(strict=strict, verbose=verbose or None)
        sys.excepthook = _EXCEPTHOOK
        with _children(strict=strict, verbose=verbose) if handle.active else contextlib.nullcontext():
            (run_module if module else run_path)(target, arguments or [])


@app.command(context_settings={"allow_interspersed_args": False})
def simulate(
    target: Annotated[str, typer.Argument(metavar="SCRIPT", help="A script, folder or zip file; - is standard input.")],
    arguments: Annotated[list[str] | None, typer.Argument(metavar="ARGS", help="Passed to it untouched.")] = None,
    module: Annotated[bool, typer.Option("-m", help="SCRIPT is the name of a module.")] = False,
    mac: Annotated[str | None, typer.Option(metavar="MAC", help="The Mac, such as 'M1 8GB' or 'M3 Max 36GB'.")] = None,
    patch: Annotated[bool, typer.Option(help="Patch as `run` does, or try the script on the bare Mac.")] = True,
    without: Without = None,
    faults: Annotated[str, typer.Option(metavar="A,B", help="Bugs of PyTorch's mps backend to be simulated.")] = "",
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report as an HTML page.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write everything as JSON.")] = None,
    strict: Annotated[bool, typer.Option(help="Stop when a change that training needs cannot be made.")] = True,
) -> None:
    """Runs SCRIPT as if on a Mac, on Linux, and ends with a verdict. The exit code is the script's."""
    from patcher.trial.command import Order, carry_out

    order = Order(target, tuple(arguments or ()), module, mac, patch, faults, report, json, strict, _EXCEPTHOOK)
    try:
        with _leaving_out(without):
            code = carry_out(order)
    except PatcherError as error:
        _wrong_use(error)
    raise typer.Exit(code)


@app.command(context_settings={"allow_interspersed_args": False})
def bisect(
    target: Annotated[str, typer.Argument(metavar="SCRIPT", help="A script, folder or zip file.")],
    arguments: Annotated[list[str] | None, typer.Argument(metavar="ARGS", help="Passed to it untouched.")] = None,
    module: Annotated[bool, typer.Option("-m", help="SCRIPT is the name of a module.")] = False,
    simulate: Simulate = None,
    command: Annotated[
        str | None, typer.Option(metavar="CMD", help="Search for a difference in what this shell command prints.")
    ] = None,
    match: Annotated[str | None, typer.Option(metavar="TEXT", help="Search for a run that prints this text.")] = None,
    timeout: Annotated[float | None, typer.Option(metavar="S", help="Seconds after which a run is ended.")] = None,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report to send to this file.")] = None,
) -> None:
    """Runs SCRIPT again and again to find the changes with which it fails. Exit code 0 where they were found."""
    from patcher.bisect.command import Order, carry_out

    order = Order(target, tuple(arguments or ()), module, simulate, timeout, command, match, report)
    try:
        code = carry_out(order)
    except PatcherError as error:
        _wrong_use(error)
    raise typer.Exit(code)


@app.command()
def drift(
    wanted: Annotated[
        list[str] | None,
        typer.Argument(metavar="VERSION", help="A version, or wheels or sdists; the newest release by default."),
    ] = None,
    library: Annotated[str, typer.Option(help="The library whose changes are compared.")] = "unsloth",
    everything: Annotated[bool, typer.Option("--all", help="A table of every release since --since.")] = False,
    since: Annotated[str, typer.Option(metavar="VERSION", help="The first release of the table.")] = "2026.2.1",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tells which changes fit a release of a library, by its text. Exit code 1 if one that training needs does not."""
    from patcher.drift.command import Order, carry_out

    try:
        code = carry_out(Order(tuple(wanted or ()), library, since if everything else None, json))
    except PatcherError as error:
        _wrong_use(error)
    raise typer.Exit(code)


@app.command()
def report(
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    simulate: Simulate = None,
    without: Without = None,
    imports: Annotated[
        list[str] | None,
        typer.Option("--import", metavar="MODULE", help="Import this module first, so that its changes are in place."),
    ] = None,
) -> None:
    """Tells what is patched on this machine. Exit code 1 if an import fails or a change that training needs does."""
    with _simulating(simulate), _leaving_out(without):
        handle = _patch(strict=False)
        failed = _import_all(imports or [])
        found = handle.report()
    _print_report(found, json)
    if failed or any(entry.state is State.REFUSED and entry.change.required for entry in found.entries):
        raise typer.Exit(1)


@app.command()
def bench(
    model: Annotated[str, typer.Option(metavar="A,B", help="Families of models, or all.")] = "llama",
    device: Annotated[str, typer.Option(metavar="A,B", help="mps, cpu or both.")] = "mps,cpu",
    dtype: Annotated[str, typer.Option(metavar="A,B", help="float32, float16, bfloat16.")] = "float32",
    rows: Annotated[int, typer.Option(min=2, help="Rows in a batch.")] = 2,
    steps: Annotated[int, typer.Option(min=1, help="Steps of which the median is taken.")] = 5,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    simulate: Simulate = None,
) -> None:
    """Runs small models of the families on devices side by side. Exit code 1 if one fails."""
    from rich.console import Console

    from patcher.bench import command, table

    mac = simulate or environment.snapshot().get(SIMULATE)
    try:
        wanted = command.orders(model, device, dtype, rows=rows, steps=steps, simulate=mac)
    except PatcherError as error:
        _wrong_use(error)
    with Console(stderr=True).status("") as status:
        runs = []
        for number, run in enumerate(command.run_all(wanted), 1):
            runs.append(run)
            status.update(f"{number} of {len(wanted)}: {run.order.model} {run.order.dtype} {run.order.device}")
    if json:
        typer.echo(table.as_json(runs))
    else:
        table.show(runs, Console(), simulated=mac is not None and "mps" in device)
    if any(run.figures is None for run in runs):
        raise typer.Exit(1)


def _simulating(mac: str | None) -> contextlib.AbstractContextManager[None]:
    """Asks for a simulated Mac by the variable, so that processes which the program starts simulate it too."""
    return contextlib.nullcontext() if mac is None else environment.temporarily({SIMULATE: mac})


def _leaving_out(names: str | None) -> contextlib.AbstractContextManager[None]:
    """Asks for it by the variable, which processes that the program starts inherit; adds to what the user has set."""
    given = environment.value_of(environment.WITHOUT)
    both = ",".join(part for part in (given, names) if part)
    return contextlib.nullcontext() if names is None else environment.temporarily({environment.WITHOUT: both})


def _children(*, strict: bool, verbose: bool) -> contextlib.AbstractContextManager[None]:
    """Patches the Python processes that the program starts."""
    return environment.temporarily(children.variables(environment.snapshot(), strict=strict, verbose=verbose))


def _patch(*, strict: bool, verbose: bool | None = None) -> Handle:
    try:
        handle = patch_for_mac(strict=strict, verbose=verbose)
    except PatcherError as error:
        _wrong_use(error)
    if verbose and not handle.active:
        typer.echo(str(handle.report()), err=True)
    return handle


def _wrong_use(error: PatcherError) -> NoReturn:
    typer.echo(str(error), err=True)
    raise typer.Exit(WRONG_USE) from error


def _import_all(modules: list[str]) -> bool:
    """Imports modules, whose chatter goes to stderr; says whether one failed."""
    failed = False
    for name in modules:
        try:
            with contextlib.redirect_stdout(sys.stderr):
                importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 - any module of the user's: reported, and the exit code is 1
            failed = True
            typer.echo(f"import {name} failed: {type(error).__name__}: {error}", err=True)
    return failed


def _print_report(found: Report, json: bool) -> None:
    if json:
        typer.echo(found.to_json())
    elif sys.stdout.isatty():
        from rich.console import Console

        Console().print(found)
    else:
        typer.echo(str(found))


if __name__ == "__main__":
    app()
