"""Runs a script, module, folder, zip file or standard input as ``python`` itself does, in this process.

What the program can see is what it would see under ``python``: ``__main__``, ``sys.argv``, ``sys.path[0]``, tracebacks,
exit codes. `patcher.__main__` puts the patches in place before.
"""

from __future__ import annotations

import builtins
import io
import os
import pkgutil
import runpy
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import BuiltinImporter, SourceFileLoader, SourcelessFileLoader
from types import CodeType, ModuleType, TracebackType
from typing import NoReturn

from patcher.engine import imports

INTERRUPTED = 130
"""What a shell reports of a program that Ctrl-C has ended: 128 + SIGINT."""


def run_module(name: str, arguments: Sequence[str]) -> NoReturn:
    """``python -m name arguments``; ends in SystemExit."""
    _program(arguments=["-m", *arguments], path=os.getcwd())
    _as_python(lambda: _run_module_as_main(name, True))


def run_path(path: str, arguments: Sequence[str]) -> NoReturn:
    """``python path arguments``; ends in SystemExit.

    Args:
        path: a script, its compiled form, a folder or zip file with a ``__main__.py``, or ``-`` for standard input.
        arguments: what follows it on the command line.
    """
    if path == "-":
        main = _program(arguments=["-", *arguments], path="")
        _as_python(lambda: _run_stdin(main))
    if pkgutil.get_importer(path) is not None:
        _program(arguments=[path, *arguments], path=_absolute(path), insert=True)
        _as_python(lambda: _run_module_as_main("__main__", False))
    main = _program(arguments=[path, *arguments], path=os.path.dirname(os.path.realpath(path)))
    _as_python(lambda: _run_file(main, _absolute(path)))


def _absolute(path: str) -> str:
    """As the interpreter does it for ``__file__``: without removing dots."""
    return os.getcwd() if path == "." else os.path.join(os.getcwd(), path)


def _program(*, arguments: list[str], path: str, insert: bool = False) -> ModuleType:
    """The state in which a program starts: its arguments, the head of its import path, an empty ``__main__``.

    Args:
        arguments: ``sys.argv``.
        path: ``sys.path[0]``, which under ``-P`` the interpreter does not set.
        insert: set it also then, as it does for a folder or zip file.
    """
    sys.argv[:] = arguments
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = path
    elif insert:
        sys.path.insert(0, path)
    main = ModuleType("__main__")
    vars(main).update(__builtins__=builtins, __loader__=BuiltinImporter)
    if sys.version_info < (3, 14):
        vars(main)["__annotations__"] = {}
    imports.become_main(main)
    return main


def _as_python(body: Callable[[], None]) -> NoReturn:
    """Runs the program; an exception that it does not catch is printed and ends it as under ``python``."""
    try:
        body()
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001 - the outermost frame of the program: nobody else would report it
        _print_uncaught(error)
        raise SystemExit(INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1) from None
    raise SystemExit(0)


def _print_uncaught(error: BaseException) -> None:
    trace = _without_this_file(error.__traceback__)
    error.__traceback__ = trace
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, trace
    sys.excepthook(type(error), error, trace)


def _without_this_file(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return trace


def _run_module_as_main(name: str, module: bool) -> None:
    # The function that the interpreter itself calls for -m, folders and zip files (Modules/main.c, Python 3.10-3.14):
    # __spec__, messages and the frames in a traceback are then its own.
    runpy._run_module_as_main(name, module)  # type: ignore[attr-defined]


def _run_file(main: ModuleType, path: str) -> None:
    compiled = path.endswith(".pyc")
    loader = SourcelessFileLoader("__main__", path) if compiled else SourceFileLoader("__main__", path)
    try:
        code = loader.get_code("__main__") if compiled else _compiled(_content(path), path)
    except OSError as error:
        _exit_without_file(path, error)
    vars(main).update(__file__=path, __cached__=None, __loader__=loader)
    assert code is not None
    exec(code, vars(main))  # noqa: S102 - this is the user's program


def _run_stdin(main: ModuleType) -> None:
    vars(main).update(__file__="<stdin>", __cached__=None)
    exec(_compiled(sys.stdin.buffer.read(), "<stdin>"), vars(main))  # noqa: S102 - this is the user's program


def _content(path: str) -> bytes:
    with io.open_code(path) as file:
        return file.read()


def _compiled(source: bytes, path: str) -> CodeType:
    return compile(source, path, "exec", dont_inherit=True)


def _exit_without_file(path: str, error: OSError) -> NoReturn:
    sys.stderr.write(f"{sys.orig_argv[0]}: can't open file {path!r}: [Errno {error.errno}] {error.strerror}\n")
    raise SystemExit(2) from None
