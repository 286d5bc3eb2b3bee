"""Measures and compares kernels, as Triton's tutorials and many libraries' own benchmarks do."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triton.runtime.driver import driver

_FIRST_RUNS = 5
"""Runs by which the time of one is estimated."""
_SUMMARIES: dict[str, Callable[[list[float]], Any]] = {
    "min": min,
    "max": max,
    "mean": statistics.mean,
    "median": statistics.median,
    "all": list,
}


def do_bench(
    fn: Callable[[], Any],
    warmup: float = 25,
    rep: float = 100,
    grad_to_none: Iterable[Any] | None = None,
    quantiles: Sequence[float] | None = None,
    return_mode: str = "mean",
) -> Any:
    """The time in ms that mps takes for ``fn()``, each run with cold caches.

    Args:
        fn: queues the work.
        warmup: ms of runs that do not count, after the first ones.
        rep: ms of runs that count; at least one is made.
        grad_to_none: tensors whose ``.grad`` is dropped before each run.
        quantiles: which quantiles to give, as numbers from 0 to 1; one is given as a number, more as a list.
        return_mode: without quantiles: ``"min"``, ``"max"``, ``"mean"``, ``"median"``, or ``"all"`` times.

    Raises:
        RuntimeError: there is no mps device.
    """
    _check(quantiles, return_mode)
    cache = driver.active.get_empty_cache_for_benchmark()
    fn()

    def first() -> None:
        for _ in range(_FIRST_RUNS):
            driver.active.clear_cache(cache)
            fn()

    estimate = _times(first, 1, (), None)[0] / _FIRST_RUNS
    _times(fn, _runs(warmup, estimate), (), None)
    return _summary(_times(fn, _runs(rep, estimate), list(grad_to_none or ()), cache), quantiles, return_mode)


def do_bench_cudagraph(
    fn: Callable[[], Any],
    rep: float = 20,
    grad_to_none: Iterable[Any] | None = None,
    quantiles: Sequence[float] | None = None,
    return_mode: str = "mean",
) -> Any:
    """The time in ms of ``fn()`` within a row of runs that are queued together, with warm caches.

    CUDA replays a graph for this; Metal has none, so what the host takes longer for than the GPU counts as well.
    Arguments and errors are those of `do_bench`.
    """
    _check(quantiles, return_mode)
    _ = driver.active
    fn()
    tensors = list(grad_to_none or ())
    estimate = statistics.mean(_times(fn, _FIRST_RUNS, (), None))
    runs = _runs(rep, estimate)

    def row() -> None:
        for _ in range(runs):
            _drop_gradients(tensors)
            fn()

    times = [time / runs for time in _times(row, 10, (), None)]
    return _summary(times, quantiles, return_mode)


def _times(fn: Callable[[], Any], runs: int, tensors: Iterable[Any], cache: Any) -> list[float]:
    """ms of each of ``runs`` calls, measured by mps; ``cache`` is written over before each, if there is one."""
    import torch

    marks = []
    for _ in range(runs):
        _drop_gradients(tensors)
        if cache is not None:
            driver.active.clear_cache(cache)
        start, end = torch.mps.Event(enable_timing=True), torch.mps.Event(enable_timing=True)
        start.record()
        fn()
        end.record()
        marks.append((start, end))
    torch.mps.synchronize()
    return [start.elapsed_time(end) for start, end in marks]


def _drop_gradients(tensors: Iterable[Any]) -> None:
    """So that a backward pass within what is measured adds to nothing."""
    for tensor in tensors:
        tensor.grad = None


def _runs(milliseconds: float, estimate: float) -> int:
    """How many runs of ``estimate`` ms fit, at least 1 and at most 1000 where a run takes no time that is measured."""
    return max(1, int(milliseconds / estimate)) if estimate > 0 else 1000


def _check(quantiles: Sequence[float] | None, return_mode: str) -> None:
    """Raises ValueError before anything is measured for nothing."""
    if return_mode not in _SUMMARIES:
        raise ValueError(f"return_mode is one of {', '.join(_SUMMARIES)}, not {return_mode!r}")
    if any(not 0 <= quantile <= 1 for quantile in quantiles or ()):
        raise ValueError(f"quantiles are numbers from 0 to 1, not {list(quantiles or ())}")


def _summary(times: list[float], quantiles: Sequence[float] | None, return_mode: str) -> Any:
    """What is asked for of the times."""
    if quantiles is None:
        return _SUMMARIES[return_mode](times)
    found = [_quantile(sorted(times), quantile) for quantile in quantiles]
    return found[0] if len(found) == 1 else found


def _quantile(times: list[float], quantile: float) -> float:
    """Between the two times next to it, as the line through them has it."""
    at = quantile * (len(times) - 1)
    below = int(at)
    above = min(below + 1, len(times) - 1)
    return times[below] + (at - below) * (times[above] - times[below])


def assert_close(x: Any, y: Any, atol: Any = None, rtol: Any = None, err_msg: str = "") -> None:
    """Raises AssertionError unless ``|x - y| <= atol + rtol * |y|`` everywhere; among several numbers NaN equals NaN.

    Args:
        x: tensors, arrays, lists or numbers, as ``y``.
        y: what is expected.
        atol: a number, or a function of ``x``'s dtype; 0.01 if not given.
        rtol: likewise; 0 if not given.
        err_msg: said first.
    """
    import numpy as np
    import torch

    found, expected = (value if torch.is_tensor(value) else torch.as_tensor(value) for value in (x, y))
    limits = [limit(found.dtype) if callable(limit) else limit for limit in (atol, rtol)]
    arrays = [value.detach().cpu() for value in (found, expected)]
    left, right = ((value.float() if value.dtype is torch.bfloat16 else value).numpy() for value in arrays)
    allowed = {"atol": 1e-2 if limits[0] is None else limits[0], "rtol": 0.0 if limits[1] is None else limits[1]}
    if left.size > 1 or right.size > 1:
        np.testing.assert_allclose(left, right, **allowed, err_msg=err_msg)
    elif not np.allclose(left, right, **allowed):
        raise AssertionError(f"{err_msg} {left} is not close to {right} ({allowed})")


@dataclass
class Benchmark:
    """A table to measure: a row for each of ``x_vals``, a column for each of ``line_vals``.

    Attributes:
        x_names: the arguments that a row gives.
        x_vals: their values: a tuple for each row, or one value for all of them.
        line_arg: the argument that a column gives.
        line_vals: its values.
        line_names: the columns' titles.
        plot_name: the table's title, and the files' name.
        args: the other arguments.
        xlabel: of the picture; the first of ``x_names`` if empty.
        ylabel: what is measured, with its unit.
        x_log: whether the picture's axis is logarithmic.
        y_log: likewise.
        styles: a colour and a line style for each column.
    """

    x_names: list[str]
    x_vals: list[Any]
    line_arg: str
    line_vals: list[Any]
    line_names: list[str]
    plot_name: str
    args: dict[str, Any]
    xlabel: str = ""
    ylabel: str = ""
    x_log: bool = False
    y_log: bool = False
    styles: list[tuple[str, str]] | None = None

    def rows(self) -> list[tuple[Any, ...]]:
        """The values of ``x_names``, row by row. Raises ValueError where a row has more or fewer."""
        rows = [tuple(x) if isinstance(x, list | tuple) else (x,) * len(self.x_names) for x in self.x_vals]
        for row in rows:
            if len(row) != len(self.x_names):
                raise ValueError(f"Expected {len(self.x_names)} values, got {row}")
        return rows

    def columns(self, kind: str = "") -> list[str]:
        """The titles of the columns of one kind: the values, or their ``"-min"`` and ``"-max"``."""
        return [f"{name}{kind} ({self.ylabel})" for name in self.line_names]


@dataclass
class Mark:
    """A function that measures, with the tables to fill.

    Attributes:
        fn: called with a row's, a column's and the other arguments; gives a number, or a number with the least and
            the largest that it may be.
        benchmarks: one table or several.
    """

    fn: Callable[..., Any]
    benchmarks: Benchmark | Sequence[Benchmark]

    def run(
        self,
        show_plots: bool = False,
        print_data: bool = False,
        save_path: str = "",
        return_df: bool = False,
        diff_col: bool = False,
        save_precision: int = 6,
        **kwargs: Any,
    ) -> Any:
        """Measures every table. Pictures need matplotlib, which is imported for them only.

        Args:
            show_plots: show a picture of each.
            print_data: print each.
            save_path: a folder for a picture and a ``.csv`` of each, and ``results.html`` with all pictures.
            return_df: return the table as a DataFrame of pandas, a list of them where there are several.
            diff_col: a last column with the difference of a table's two columns.
            save_precision: digits after the point in a ``.csv``.
            kwargs: more arguments of the function.
        """
        single = isinstance(self.benchmarks, Benchmark)
        benchmarks = [self.benchmarks] if isinstance(self.benchmarks, Benchmark) else list(self.benchmarks)
        folder = Path(save_path) if save_path else None
        tables = []
        for benchmark in benchmarks:
            full = _measured(self.fn, benchmark, kwargs)
            table = full[[*benchmark.x_names, *benchmark.columns()]].copy()
            if diff_col and table.shape[1] == 2:
                table["Diff"] = table.iloc[:, 1] - table.iloc[:, 0]
            tables.append(table)
            if print_data:
                print(f"{benchmark.plot_name}:\n{table.to_string()}")
            if folder:
                folder.mkdir(parents=True, exist_ok=True)
                csv = folder / f"{benchmark.plot_name}.csv"
                table.to_csv(csv, float_format=f"%.{save_precision}f", index=False)
            if benchmark.plot_name and (folder or show_plots):
                _draw(full, benchmark, folder, show_plots)
        if folder:
            pictures = "".join(f'<image src="{benchmark.plot_name}.png"/>\n' for benchmark in benchmarks)
            (folder / "results.html").write_text(f"<html><body>\n{pictures}</body></html>\n")
        if return_df:
            return tables[0] if single else tables
        return None


def _measured(fn: Callable[..., Any], benchmark: Benchmark, kwargs: dict[str, Any]) -> Any:
    """A DataFrame of the rows' arguments, then values, least and largest values by column."""
    import pandas

    titles = [*benchmark.x_names, *benchmark.columns(), *benchmark.columns("-min"), *benchmark.columns("-max")]
    table = pandas.DataFrame(columns=titles)
    for row in benchmark.rows():
        given = dict(zip(benchmark.x_names, row, strict=True))
        cells = []
        for line in benchmark.line_vals:
            found = fn(**given, **{benchmark.line_arg: line}, **benchmark.args, **kwargs)
            cells.append(tuple(found) if isinstance(found, list | tuple) else (found, None, None))
        table.loc[len(table)] = [*row, *itertools.chain.from_iterable(zip(*cells, strict=True))]
    return table


def _draw(table: Any, benchmark: Benchmark, folder: Path | None, show: bool) -> None:
    """A line for each column over the first of ``x_names``, with a band where there are least and largest values."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    x = table[benchmark.x_names[0]]
    titles = zip(benchmark.columns(), benchmark.columns("-min"), benchmark.columns("-max"), strict=True)
    for number, (value, least, largest) in enumerate(titles):
        colour, style = benchmark.styles[number] if benchmark.styles else (None, None)
        axes.plot(x, table[value], label=value, color=colour, linestyle=style)
        if table[[least, largest]].notnull().all(axis=None):
            axes.fill_between(x, table[least].astype(float), table[largest].astype(float), alpha=0.15, color=colour)
    axes.legend()
    axes.set_xlabel(benchmark.xlabel or benchmark.x_names[0])
    axes.set_ylabel(benchmark.ylabel)
    axes.set_xscale("log" if benchmark.x_log else "linear")
    axes.set_yscale("log" if benchmark.y_log else "linear")
    if show:
        plt.show()
    if folder:
        figure.savefig(folder / f"{benchmark.plot_name}.png")
    plt.close(figure)


def perf_report(benchmarks: Benchmark | Sequence[Benchmark]) -> Callable[[Callable[..., Any]], Mark]:
    """Decorates a function that measures; its ``run()`` fills the tables."""
    return lambda fn: Mark(fn, benchmarks)


__all__ = ["Benchmark", "Mark", "assert_close", "do_bench", "do_bench_cudagraph", "perf_report"]
