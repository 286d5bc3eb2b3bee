"""Finds a clang, and compiles translated shaders with it, once each, into the user's cache folder."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from patcher import environment
from patcher.errors import SimulatorUnavailable, compose
from patcher.simulator import build, device
from patcher.simulator.metal.translate import (
    SOURCE_NAME,
    Kernel,
    Parameter,
    ShaderError,
    translate,
    unset_function_constants,
)

INCLUDE = Path(__file__).parent / "include"
TRANSLATORS = ("lints.py", "tokens.py", "translate.py", "toolchain.py")
RUNTIME = Path(__file__).parent / "runtime"
OLDEST = 17
"""clang 17 is the first with arithmetic in __bf16."""
NEWEST = 29
MACROS = (
    *("-D__METAL__=1", "-D__METAL_MACOS__=1", "-D__HAVE_BFLOAT__=1"),
    "-DMETAL_FUNC=inline __attribute__((always_inline))",
)
FLAGS = (
    *("-std=c++20", "-O1", "-fPIC", "-w", "-fdeclspec", "-fsigned-char", "-fno-exceptions", "-fno-rtti"),
    *("-nostdinc++", "-fno-strict-aliasing", "-fno-math-errno", "-ffp-contract=off", "-fvisibility=hidden"),
    *("-fno-color-diagnostics", "-fno-sanitize=undefined"),
    # Metal has no double: a literal without a suffix is a float, and half and bfloat are rounded after each operation.
    *("-Xclang", "-cl-single-precision-constant"),
    *("-Xclang", "-ffloat16-excess-precision=none", "-Xclang", "-fbfloat16-excess-precision=none"),
)
CHECK_FLAGS = (
    # The compiler's part of the thread sanitizer, without its library: the runtime's checker answers.
    *("-g1", "-gdwarf-4", "-Xclang", "-fsanitize=thread"),
    *("-mllvm", "-tsan-instrument-func-entry-exit=0", "-mllvm", "-tsan-instrument-atomics=0"),
    # It leaves accesses of more than 16 bytes alone, which vectorizing makes of smaller ones.
    *("-fno-vectorize", "-fno-slp-vectorize"),
)
LANGUAGE_VERSIONS = {26: 400, 15: 320, 14: 310}
"""__METAL_VERSION__ by the first macOS that has it. torch asks for the newest."""
RUNTIME_FLAGS = ("-std=c++20", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-w")
MAX_ERRORS = 20
_STANDARD_HEADER = re.compile(r"^[ \t]*#[ \t]*include[ \t]*<(?:metal_\w+|simd/simd\.h)>.*$", re.MULTILINE)


@dataclass(frozen=True)
class Compiler:
    """A clang that compiles shaders.

    Attributes:
        command: how it is called.
        identity: changes when the program does.
        zig: whether it is the one that the ziglang wheel carries.
    """

    command: tuple[str, ...]
    identity: str
    zig: bool


@dataclass(frozen=True)
class Program:
    """A compiled shader.

    Attributes:
        library: the file with the launchers, numbered as the kernels are.
        kernels: what the host can call.
        unset: function constants that have no value.
        checked: whether it was compiled for the checker.
    """

    library: Path
    kernels: tuple[Kernel, ...]
    unset: tuple[int, ...] = ()
    checked: bool = False


@functools.lru_cache(maxsize=1)
def compiler() -> Compiler:
    """The clang of this machine: on PATH, the newest first, else the one in the ziglang wheel.

    Raises:
        SimulatorUnavailable: there is neither.
    """
    names = [f"clang++-{version}" for version in range(NEWEST, OLDEST - 1, -1)] + ["clang++"]
    for path in filter(None, map(shutil.which, names)):
        if _version(path) >= OLDEST:
            return Compiler((path,), _identity(Path(path).resolve()), zig=False)
    wheel = importlib.util.find_spec("ziglang")
    if wheel is not None and wheel.origin is not None:
        program = Path(wheel.origin).parent / "zig"
        return Compiler((str(program), "c++"), _identity(program), zig=True)
    raise SimulatorUnavailable(
        compose(
            "Metal shaders on the simulated mps device are compiled by clang",
            expected=f"clang++ {OLDEST} or newer on PATH, or the ziglang package",
            found="neither",
            left="everything else of the device works",
            run="pip install ziglang",
        )
    )


def _version(program: str) -> int:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    match = re.search(r"clang version (\d+)", done.stdout)
    return int(match[1]) if match else 0


def _identity(program: Path) -> str:
    status = program.stat()
    return f"{program} {status.st_size} {status.st_mtime_ns}"


def compile_source(source: str, constants: Mapping[int, int | float | bool], *, check: bool = False) -> Program:
    """Compiles a shader, or finds it in the cache.

    Raises:
        SyntaxError: the shader is wrong; the message has the lines of the source, as Metal's has.
        SimulatorUnavailable: no compiler, or the cache folder is not writable.
    """
    clang = compiler()
    runtime = runtime_library()
    options = [*FLAGS, *_machine_flags(clang), *(CHECK_FLAGS if check else ())]
    macros = (*MACROS, f"-D__METAL_VERSION__={language_version()}")
    parts = (clang.identity, str(runtime), _headers(), *options, *macros, repr(sorted(constants.items())), source)
    folder = _cache_folder()
    final = folder / hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
    if not final.exists():
        with _scratch(folder) as scratch:
            expanded = _preprocess(clang, macros, source)
            _build(clang, options, expanded, constants, runtime, Path(scratch))
            _put(Path(scratch), final)
    return _read(final, check)


def language_version() -> int:
    """Metal's version on the simulated Mac: 320 is 3.2."""
    running = device.running()
    major = (running.mac.macos or (0, 0))[0] if running is not None else 0
    return next((version for first, version in LANGUAGE_VERSIONS.items() if major >= first), 310)


def _preprocess(clang: Compiler, macros: Sequence[str], source: str) -> str:
    text = f'#line 1 "{SOURCE_NAME}"\n' + _STANDARD_HEADER.sub("", source) + "\n"
    return _run([*clang.command, "-E", "-x", "c++", "-std=c++20", "-nostdinc", "-nostdinc++", *macros, "-"], text)


def _build(
    clang: Compiler,
    options: Sequence[str],
    expanded: str,
    constants: Mapping[int, int | float | bool],
    runtime: Path,
    folder: Path,
) -> None:
    try:
        body, kernels = translate(expanded, constants)
    except ShaderError as error:
        raise SyntaxError(str(error)) from error
    code, library = folder / "shader.cpp", folder / "shader.so"
    code.write_text(f'#include "metal_cpu.h"\nusing namespace metal;\n{body}')
    # The library names the runtime by its path, so that its calls are found there.
    link = ["-shared", "-nostdlib", str(runtime)]
    _run([*clang.command, *options, f"-I{INCLUDE}", "-x", "c++", str(code), "-x", "none", *link, "-o", str(library)])
    unset = unset_function_constants(expanded, constants)
    (folder / "kernels.json").write_text(json.dumps({"kernels": [asdict(k) for k in kernels], "unset": unset}))


def _read(folder: Path, checked: bool) -> Program:
    stored = json.loads((folder / "kernels.json").read_text())
    kernels = [
        Kernel(**{**kernel, "parameters": tuple(Parameter(**one) for one in kernel["parameters"])})
        for kernel in stored["kernels"]
    ]
    return Program(folder / "shader.so", tuple(kernels), tuple(stored["unset"]), checked)


def _run(command: Sequence[str], text: str | None = None) -> str:
    zig_cache = str(_cache_folder() / "zig")
    variables = environment.snapshot() | {"ZIG_GLOBAL_CACHE_DIR": zig_cache, "ZIG_LOCAL_CACHE_DIR": zig_cache}
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, env=variables)
    if done.returncode != 0:
        raise SyntaxError(_errors(done.stderr))
    return done.stdout


def _errors(output: str) -> str:
    """The errors of the shader, without what refers to the headers of this project."""
    lines = output.replace('\\"', '"').splitlines()
    starts = [i for i, line in enumerate(lines) if re.match(r"[^ ].*?: (fatal )?error: ", line)]
    blocks = []
    for begin, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        block = [line for line in lines[begin:end] if not re.match(r"\d+ errors? generated", line)]
        blocks.append("\n".join(block))
    own = [block for block in blocks if block.startswith(SOURCE_NAME)]
    return "\n".join((own or blocks or [output])[:MAX_ERRORS])


# ---- the cache ----------------------------------------------------------------------------------------------------


def _cache_folder() -> Path:
    folder = environment.cache_folder() / "metal-on-cpu"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SimulatorUnavailable(
            compose(
                "compiled Metal shaders cannot be kept",
                expected=f"a folder that can be written to: {folder}",
                found=str(error),
                run="set PATCHER_CACHE to another folder",
            )
        ) from error
    return folder


def _scratch(folder: Path) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(dir=folder, prefix="building-", ignore_cleanup_errors=True)


def _put(scratch: Path, final: Path) -> None:
    """Makes a finished folder visible at once; another process may have been faster with the same."""
    ready = scratch / "ready"
    ready.mkdir()
    for path in [path for path in scratch.iterdir() if path.is_file()]:
        path.rename(ready / path.name)
    try:
        ready.rename(final)
    except OSError:
        if not final.exists():
            raise


@functools.lru_cache(maxsize=1)
def _headers() -> str:
    """What a source becomes depends on these files."""
    digest = hashlib.sha256()
    for path in [*sorted(INCLUDE.glob("*.h")), *(Path(__file__).parent / name for name in TRANSLATORS)]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


# ---- the runtime ----------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def runtime_library() -> Path:
    """The compiled runtime of this machine; built on first use, by the compiler that the device was built with."""
    digest = hashlib.sha256(" ".join((platform.machine(), *RUNTIME_FLAGS)).encode())
    sources = sorted(RUNTIME.glob("*.cpp"))
    for path in (*sources, *sorted(RUNTIME.glob("*.h"))):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    folder = _cache_folder()
    final = folder / f"runtime-{digest.hexdigest()[:16]}"
    if not final.exists():
        with _scratch(folder) as scratch:
            target = Path(scratch) / "libmetal_cpu.so"
            libraries = ["-Wl,--no-as-needed", "-lm"]
            build.compile_with([build.compiler(), *RUNTIME_FLAGS, *map(str, sources), "-o", str(target), *libraries])
            _put(Path(scratch), final)
    return final / "libmetal_cpu.so"


@functools.lru_cache(maxsize=1)
def runtime() -> ctypes.CDLL:
    """The runtime, loaded."""
    return ctypes.CDLL(str(runtime_library()))


def _machine_flags(clang: Compiler) -> tuple[str, ...]:
    """float and half are converted by instructions that every x86 processor since 2013 has."""
    if platform.machine() != "x86_64":
        return ()
    words = Path("/proc/cpuinfo").read_text().split() if sys.platform == "linux" else []
    missing = [word for word in ("avx2", "f16c", "fma") if word not in words]
    if missing:
        raise SimulatorUnavailable(
            compose(
                "Metal shaders on the simulated mps device need a newer processor",
                expected="an x86-64 processor with AVX2, F16C and FMA",
                found=f"one without {', '.join(missing)}",
            )
        )
    return ("-mcpu=x86_64_v3",) if clang.zig else ("-march=x86-64-v3",)
