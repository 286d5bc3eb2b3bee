"""The only code that touches os.environ: the switches, the defaults, and values set for a moment."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from patcher.errors import InvalidSwitch, compose

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"", "0", "false", "no", "off"}

WITHOUT = "PATCHER_WITHOUT"
FORCE = "PATCHER_FORCE"
HIGH = "PYTORCH_MPS_HIGH_WATERMARK_RATIO"
LOW = "PYTORCH_MPS_LOW_WATERMARK_RATIO"
DEFAULT_HIGH = 1.7
"""torch's own default of the hard limit (ATen/mps/MPSAllocator.h, torch 2.13.0)."""


@dataclass(frozen=True)
class Switches:
    """What the user asked for by environment variables.

    Attributes:
        force_mps: ``UNSLOTH_FORCE_MPS``: use mps even where CUDA is present.
        disable_auto_padding_free: ``UNSLOTH_DISABLE_AUTO_PADDING_FREE``; None where unset.
        mlx_quant: ``UNSLOTH_ENABLE_MLX_QUANT``: accepted, not available yet.
        verbose: ``UNSLOTH_VERBOSE``: print every change as it is applied.
        simulate: ``UNSLOTH_SIMULATE_MAC``: the Mac to simulate, or None.
        stop_at_nan: ``PATCHER_STOP_AT_NAN``: stop at a loss that is NaN or infinite, and name its module.
        check_fit: ``PATCHER_CHECK_FIT``: refuse a model whose weights are more than torch may take on the GPU.
        float64: ``PATCHER_FLOAT64``: what becomes of float64 on mps, ``"float32"`` or ``"error"``.
        without: ``PATCHER_WITHOUT``: names of changes that are switched off, with commas between them.
        cuda_answers: ``PATCHER_CUDA_ANSWERS``: tell the script's own code that CUDA is available.
    """

    force_mps: bool
    disable_auto_padding_free: bool | None
    mlx_quant: bool
    verbose: bool
    simulate: str | None
    stop_at_nan: bool = False
    check_fit: bool = True
    float64: str = "float32"
    without: tuple[str, ...] = ()
    cuda_answers: bool = True


def switches() -> Switches:
    """Reads the switches. Raises InvalidSwitch for a value that is neither yes nor no."""
    simulate = os.environ.get("UNSLOTH_SIMULATE_MAC", "").strip()
    return Switches(
        force_mps=_flag("UNSLOTH_FORCE_MPS") or False,
        disable_auto_padding_free=_flag("UNSLOTH_DISABLE_AUTO_PADDING_FREE"),
        mlx_quant=_flag("UNSLOTH_ENABLE_MLX_QUANT") or False,
        verbose=_flag("UNSLOTH_VERBOSE") or False,
        simulate=None if simulate.lower() in _FALSE else simulate,
        stop_at_nan=stop_at_nan(),
        check_fit=check_fit(),
        float64=float64(),
        without=names(os.environ.get(WITHOUT, "")),
        cuda_answers=cuda_answers(),
    )


def stop_at_nan() -> bool:
    """``PATCHER_STOP_AT_NAN``, off where unset; as the other switches that are asked for later."""
    return _flag("PATCHER_STOP_AT_NAN") or False


def check_fit() -> bool:
    """``PATCHER_CHECK_FIT``, on where unset."""
    return _flag("PATCHER_CHECK_FIT") is not False


def cuda_answers() -> bool:
    """``PATCHER_CUDA_ANSWERS``, on where unset."""
    return _flag("PATCHER_CUDA_ANSWERS") is not False


def float64() -> str:
    """What becomes of float64 on mps: ``"float32"`` or ``"error"``. Raises InvalidSwitch for another word."""
    return _word("PATCHER_FLOAT64", "float32", "error")


def triton_kernels() -> str:
    """What runs Triton kernels on mps: ``"torch"`` or ``"metal"``. Raises InvalidSwitch for another word."""
    return _word("PATCHER_TRITON", "metal", "torch")


def triton_cache() -> bool:
    """``PATCHER_TRITON_CACHE``, on where unset: what was found out about shaders is kept for other processes."""
    return _flag("PATCHER_TRITON_CACHE") is not False


def forced_variants() -> tuple[str, ...]:
    """``PATCHER_FORCE``: variants of ops that are taken where they are right, with commas between them."""
    return names(os.environ.get(FORCE, ""))


def _word(name: str, usual: str, other: str) -> str:
    """A variable that is one of two words."""
    text = os.environ.get(name, "").strip().lower() or usual
    if text not in (usual, other):
        raise InvalidSwitch(
            compose(
                f"{name} is neither {usual} nor {other}",
                expected=f"{usual} or {other}",
                found=text,
                left="nothing changed",
                run=f"unset {name}",
            )
        )
    return text


def names(text: str) -> tuple[str, ...]:
    """The names in a list with commas between them."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def hides_gpus() -> bool:
    """Whether ``CUDA_VISIBLE_DEVICES`` shows no GPU at all: the user wants the CPU."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1")


def compile_folders() -> frozenset[str]:
    """Where Unsloth writes the code that it generates: ``UNSLOTH_COMPILE_LOCATION``, or a temporary folder of its name.

    Without the working directory, which holds the user's own code as well.
    """
    import tempfile

    location = os.environ.get("UNSLOTH_COMPILE_LOCATION", "unsloth_compiled_cache")
    temporary = os.path.join(tempfile.gettempdir(), os.path.basename(location))
    return frozenset(map(os.path.realpath, (location, temporary))) - {os.path.realpath(os.curdir)}


def value_of(name: str) -> str | None:
    """The variable's value, or None where it is not set."""
    return os.environ.get(name)


def cache_folder() -> Path:
    """``$PATCHER_CACHE``, else ``$XDG_CACHE_HOME/patch-for-mac``, else ``~/.cache/patch-for-mac``."""
    chosen = value_of("PATCHER_CACHE")
    if chosen:
        return Path(chosen)
    base = value_of("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "patch-for-mac"


def set_default(name: str, value: str) -> bool:
    """Sets the variable where the user has not; says whether it did."""
    if name in os.environ:
        return False
    os.environ[name] = value
    return True


def leave_out(added: Iterable[str]) -> Callable[[], None]:
    """Adds names to ``PATCHER_WITHOUT``; what it returns takes them away again."""
    before = os.environ.get(WITHOUT)
    both = ",".join([*names(before or ""), *added])
    os.environ[WITHOUT] = both

    def undo() -> None:
        unset(WITHOUT, both)
        if before is not None:
            set_default(WITHOUT, before)

    return undo


def unset(name: str, value: str) -> None:
    """Removes a variable that still has the value that was given to it."""
    if os.environ.get(name) == value:
        del os.environ[name]


@contextmanager
def temporarily(variables: Mapping[str, str]) -> Iterator[None]:
    """Sets variables, and puts back what was there, also after an exception."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def watermark_warning() -> str | None:
    """What is wrong with the user's memory limits for mps, and the cure; None if nothing.

    torch refuses to start the device when LOW is above HIGH (ATen/mps/MPSAllocator.mm, torch 2.13.0). Where the user
    has set one of them, patcher.changes.environment chooses the other one to fit.

    Raises:
        InvalidSwitch: a limit is no number from 0 to 2.
    """
    high, low = ratio(HIGH), ratio(LOW)
    if high and low is not None and low > high:
        return (
            f"{LOW}={low:g} is above {HIGH}={high:g}: torch will refuse to start the mps device. "
            f"Unset {LOW}, or set it to {high * 0.9:.3g} or less"
        )
    if high == 0:
        return f"{HIGH}=0 removes the memory limit: a Mac that runs out of memory then swaps until it hangs. Try 1.0"
    return None


def snapshot() -> dict[str, str]:
    """A copy of the environment."""
    return dict(os.environ)


def ratio(name: str) -> float | None:
    """A memory limit, as a multiple of the recommended maximum; None where unset, InvalidSwitch beyond 0 to 2."""
    text = os.environ.get(name)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 2:
        raise InvalidSwitch(
            compose(
                f"{name} is not a ratio",
                expected="a number from 0 to 2",
                found=text,
                left="nothing changed",
                run=f"unset {name}",
            )
        )
    return value


def _flag(name: str) -> bool | None:
    text = os.environ.get(name)
    if text is None:
        return None
    if text.strip().lower() in _TRUE:
        return True
    if text.strip().lower() in _FALSE:
        return False
    raise InvalidSwitch(
        compose(
            f"{name} is neither on nor off",
            expected="1 or 0",
            found=text,
            left="nothing changed",
            run=f"export {name}=1, or unset {name}",
        )
    )
