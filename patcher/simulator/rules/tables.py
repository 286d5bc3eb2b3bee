"""Reads the data file of a torch release: what its list of operators does not tell about mps."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from patcher import environment
from patcher.errors import SimulatorUnavailable, compose
from patcher.macs.mac import release_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).parent
FALLBACK = "PYTORCH_ENABLE_MPS_FALLBACK"

CLASSES = {
    "complex": ("complex32", "complex64"),
    "float8": ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"),
    "integer": ("uint8", "int8", "int16", "int32", "int64"),
    "unsigned": ("uint16", "uint32", "uint64"),
    "half": ("float16", "bfloat16"),
    "floating": ("float16", "bfloat16", "float32"),
}
"""Words that a data file may use for several dtypes."""

NOTICE = "UserWarning"
ERRORS = ("RuntimeError", "TypeError", "NotImplementedError", "SyntaxError", NOTICE)


@dataclass(frozen=True)
class Refusal:
    """Calls that a Mac refuses.

    Attributes:
        name: of the rule; counted under it in `Rules.refused`.
        operators: with namespace and overload: ``aten::add.out``; ``*`` stands for every one.
        message: what is raised; ``{op}``, ``{name}`` and ``{metal}`` (operator and dtype as in a Metal kernel's name),
            ``{argument}``, ``{dtype}``, ``{dtypes}``, ``{size}``, ``{numel}``, ``{dim}``, ``{bytes}`` and
            ``{twice_bytes}`` of a matrix are filled in.
        source: where it is known from.
        error: the exception's class. `NOTICE`: nothing is refused; the operator runs on the CPU, and that is said once.
        except_: operators that a rule of every operator is not for.
        arguments: names of the arguments that are looked at; none means every tensor.
        dtypes: refused; none means any.
        dim_over, size_over, numel_over: refused are more dimensions, a longer dimension, more elements than this;
            -1 does not look.
        sides_over, matrix_bytes_over: matrices are refused of which both sides are longer, or which have more bytes.
        unequal_dim: tensors are refused whose sizes in this dimension differ.
        divisible: name of a list of sizes, which the last sizes of the tensor must all divide, or be divided by.
        channels_last: refused are tensors of four dimensions in this memory format.
        mixed: refused are floating point tensors of more than one dtype.
        before_macos: it holds on an older macOS only (``major * 100 + minor``); 0: on all.
        when, equals: it holds where another argument has this value, as text; ``complex`` is any that is not real,
            ``negative`` and ``nonzero`` any such number.
    """

    name: str
    operators: tuple[str, ...]
    message: str
    source: str
    error: str = "RuntimeError"
    except_: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    dim_over: int = -1
    size_over: int = -1
    numel_over: int = -1
    sides_over: int = -1
    matrix_bytes_over: int = -1
    unequal_dim: int = -1
    divisible: str = ""
    channels_last: bool = False
    mixed: bool = False
    before_macos: int = 0
    when: str = ""
    equals: str = ""

    def native(self, torch: ModuleType) -> dict[str, Any]:
        """The form that the compiled device takes."""
        fields = {key: value for key, value in vars(self).items() if key != "source"}
        return {**fields, "dtypes": [getattr(torch, name) for name in self.dtypes]}


@dataclass(frozen=True)
class Table:
    """The content of one data file.

    Attributes:
        present: operators with an mps kernel that torch's list does not name.
        absent: operators that torch's list names although a Mac has no working kernel.
        on_cpu: operators that a Mac always sends to the CPU.
        refusals: dtypes, sizes and mixtures that are refused.
    """

    present: tuple[str, ...]
    absent: tuple[str, ...]
    on_cpu: tuple[str, ...]
    refusals: tuple[Refusal, ...]


def for_torch(version: str) -> Table:
    """The table of a torch release, by its major and minor number.

    Raises:
        SimulatorUnavailable: there is none.
    """
    return table(_data(release_of(version)))


def _data(release: str) -> dict[str, Any]:
    """A data file. One with ``after`` is read upon that of another release: it has what is new, and names what went."""
    path = FOLDER / f"torch_{release.replace('.', '_')}.toml"
    if not path.exists():
        known = sorted(found.stem[len("torch_") :].replace("_", ".") for found in FOLDER.glob("torch_*.toml"))
        raise SimulatorUnavailable(
            compose(
                "the simulated mps device does not know what this torch can do on a Mac",
                found=f"torch {release}",
                expected=f"torch {', '.join(known)}",
                run=f"simulate a Mac with torch {known[-1]}",
            )
        )
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    if "after" not in data:
        return data
    base = _data(data["after"])
    kept = {name: rule for name, rule in base["refuse"].items() if name not in data["gone"]}
    return {"operators": {**base["operators"], **data["operators"]}, "refuse": {**kept, **data["refuse"]}}


def gone(operators: set[str], version: str) -> Refusal:
    """The refusal of operators that the torch which computes has, and the Mac's has not any more."""
    return Refusal(
        name="gone-from-torch",
        operators=tuple(sorted(operators)),
        message=f"torch {version} on this Mac has no operator '{{op}}'; only the older torch that computes here has",
        source="native_functions.yaml of torch's wheel for macOS",
    )


def table(data: dict[str, Any]) -> Table:
    """Checks and expands what a data file says."""
    operators = {key: _operators(names) for key, names in data["operators"].items()}
    return Table(
        **operators,
        refusals=tuple(_refusal(name, entry) for name, entry in data["refuse"].items()),
    )


def _refusal(name: str, entry: dict[str, Any]) -> Refusal:
    operators = _operators(entry["operators"])
    dtypes = tuple(dict.fromkeys(each for word in entry.get("dtypes", ()) for each in CLASSES.get(word, (word,))))
    macos = str(entry.get("before_macos", "0.0")).split(".")
    except_ = _operators(entry.get("except", []))
    entry = {key: value for key, value in entry.items() if key != "except"}
    given = {
        **entry,
        "operators": operators,
        "except_": except_,
        "dtypes": dtypes,
        "arguments": tuple(entry.get("arguments", ())),
    }
    refusal = Refusal(name=name, **{**given, "before_macos": int(macos[0]) * 100 + int(macos[1])})
    if refusal.error not in ERRORS:
        raise ValueError(f"{name}: {refusal.error} is none of {', '.join(ERRORS)}")
    return refusal


def _operators(names: list[str]) -> tuple[str, ...]:
    return tuple(full for name in names for full in _overloads(name))


def _overloads(operator: str) -> list[str]:
    """``add.{Tensor,out}`` stands for two operators, and names without a namespace are aten's."""
    full = operator if operator == "*" or "::" in operator else f"aten::{operator}"
    if "{" not in full:
        return [full]
    base, inner = full.rstrip("}").split(".{")
    return [f"{base}.{each}".rstrip(".") for each in inner.split(",")]


def fallback_wanted() -> bool:
    """Whether operators without an mps kernel run on the CPU, as torch reads it: set, and not ``0``.

    torch 2.13.0, aten/src/ATen/mps/MPSFallback.mm: any other text, an empty one too, switches it on.
    """
    value = environment.value_of(FALLBACK)
    return value is not None and value != "0"
