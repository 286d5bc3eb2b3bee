"""Every command that README and docs/ show could be typed: its program, files, subcommands and options exist."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomllib
import typer.main

from patcher.__main__ import app
from tests.process import ROOT, run_python

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md")
USERS = {"script.py", "train.py", "finetune.py", "train_with_torch_compile.py", ".venv/bin/trl"}
"""Files that the reader has."""
PROGRAMS = ("make", "python", "pip", "pytest", "patch-for-mac")


def commands() -> Iterator[tuple[str, str]]:
    """Of each page: lines after a prompt, and code within the text that begins with a program's name."""
    for page in PAGES:
        text = page.read_text()
        lines = re.findall(r"^\$ (.*)$", text, flags=re.MULTILINE)
        inline = re.findall(rf"`((?:{'|'.join(PROGRAMS)}) [^`\n]*)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
        yield from ((page.name, command) for command in dict.fromkeys([*lines, *inline]))


def words(command: str) -> list[str]:
    """The command as a shell splits it, without what follows a # and without variables before the program."""
    found = shlex.split(command, comments=True)
    while found and re.match(r"[A-Z_]+=", found[0]):
        del found[0]
    return found


@pytest.mark.parametrize(("page", "command"), list(commands()))
def test_a_command_of_the_documentation_could_be_typed(page: str, command: str) -> None:
    """A renamed file, a removed option or a misspelt target is found."""
    program, *arguments = words(command)
    if program == "make":
        assert arguments[0] in re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    elif program == "python" and arguments[0] == "-m":
        check_module(arguments[1], arguments[2:])
    elif program == "python":
        assert arguments[0] in USERS | {"-c"} or (ROOT / arguments[0]).is_file()
        if arguments[0] not in USERS:
            check_options((ROOT / arguments[0]).read_text() if arguments[0] != "-c" else "", arguments[1:])
    elif program == "pip":
        check_extras(arguments)
    elif program == "pytest":
        check_options((ROOT / "pytest_simulated_mac.py").read_text(), arguments)
    else:
        assert program == "patch-for-mac"
        check_subcommand(arguments)


def check_module(module: str, arguments: list[str]) -> None:
    """``python -m module``: one of ours exists and has the options."""
    if module == "patcher":
        check_subcommand(arguments)
        return
    spec = importlib.util.find_spec(module)
    if spec is not None and spec.submodule_search_locations is not None:
        spec = importlib.util.find_spec(f"{module}.__main__")
    assert spec is not None and spec.origin is not None
    check_options(Path(spec.origin).read_text(), arguments)


def check_subcommand(arguments: list[str]) -> None:
    """``python -m patcher SUBCOMMAND``: options before the user's script are ours."""
    group = typer.main.get_command(app)
    assert isinstance(group, typer.main.TyperGroup)
    if not arguments:
        return
    options = {name for parameter in group.commands[arguments[0]].params for name in parameter.opts}
    for argument in arguments[1:]:
        if argument in USERS or argument == "-m" or argument.startswith("$("):  # what follows is the script's
            break
        if argument.startswith("-"):
            assert argument.partition("=")[0] in options


def check_options(source: str, arguments: list[str]) -> None:
    """Long options are spelled out in the source that reads them."""
    for argument in arguments:
        option = argument.partition("=")[0]
        assert not option.startswith("--") or f'"{option}"' in source


def check_extras(arguments: list[str]) -> None:
    """``pip install``: a package by name, or this project with extras that it has."""
    assert arguments[0] == "install"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for argument in arguments[1:]:
        named = re.fullmatch(r"(?:\.|patch-for-mac)\[(\w+)\]", argument)
        assert re.fullmatch(r"[a-z]+", argument) if named is None else named[1] in extras


@pytest.mark.parametrize("subcommand", ["run", "simulate", "report", "bench", "drift"])
def test_a_subcommand_says_what_it_does(subcommand: str) -> None:
    """``--help`` exits with 0 and names the options."""
    assert "--help" in run_python("-m", "patcher", subcommand, "--help").stdout
