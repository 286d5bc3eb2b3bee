"""The triton shim has the names that the installed libraries read, and the kernel language's; kernels run."""

from __future__ import annotations

import fnmatch
import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from patcher.changes.triton.shim import CHANGES
from patcher.errors import KernelNotSupported
from tests.contract.surface import names_read, resolves, unread
from tests.process import run_python

pytestmark = pytest.mark.slow

READERS = ("torch", "trl", "unsloth", "unsloth_zoo", "transformers", "peft", "accelerate", "bitsandbytes")
SKIP = ("torch/testing/", "torch/_vendor/quack", "/benchmark/", "unsloth_zoo/stubs/")
"""Torch's own test tools, its vendored CUDA-only quack, benchmarks, and Unsloth's stand-in for Triton."""

WITHOUT_TRITON_CODE = "torch reads it when it generates or runs Triton kernels; has_triton() is False, so it never does"
OTHER_VERSIONS = "read under hasattr or except ImportError, for Triton versions that have it"
NVIDIA_ONLY = "read behind a check for a CUDA device"

NOT_NEEDED = {
    "triton._C.*": WITHOUT_TRITON_CODE,
    "triton._utils.*": WITHOUT_TRITON_CODE,
    "triton._unsloth_allocator_set": "a mark that Unsloth sets itself, on CUDA",
    "triton.backends.BaseBackend": WITHOUT_TRITON_CODE,
    "triton.backends.compiler.AttrsDescriptor*": OTHER_VERSIONS,
    "triton.backends.compiler.GPUTarget": OTHER_VERSIONS,
    "triton.backends.nvidia.driver.libcuda_dirs": NVIDIA_ONLY,
    "triton.common.build.libcuda_dirs": "for Triton before 3.0",
    "triton.compile": WITHOUT_TRITON_CODE,
    "triton.compiler.compiler.ASTSource": OTHER_VERSIONS,
    "triton.compiler.compiler.AttrsDescriptor": OTHER_VERSIONS,
    "triton.compiler.compiler.make_backend": WITHOUT_TRITON_CODE,
    "triton.debug_dump_kernel_inputs": "torch._inductor.config.triton, which is no package",
    "triton.fb.*": "Meta's own builds",
    "triton.knobs*": OTHER_VERSIONS,
    "triton.language._experimental_make_tensor_descriptor": OTHER_VERSIONS,
    "triton.language.core.extern*": "torch's symmetric memory over NVSHMEM and ROCSHMEM",
    "triton.language.extra.cuda*": OTHER_VERSIONS,
    "triton.language.extra.intel*": OTHER_VERSIONS,
    "triton.language.extra.tlx": WITHOUT_TRITON_CODE,
    "triton.language.math.tanh": "for Triton before 3.0",
    "triton.max_kernel_dump_occurrences": "torch._inductor.config.triton, which is no package",
    "triton.runtime.autotuner.PTXASError": OTHER_VERSIONS,
    "triton.runtime.cache.*": OTHER_VERSIONS,
    "triton.runtime.errors.IntelGPUError": OTHER_VERSIONS,
    "triton.runtime.interpreter.InterpretedFunction": WITHOUT_TRITON_CODE,
    "triton.runtime.jit.*specialize_impl": WITHOUT_TRITON_CODE,
    "triton.testing.get_*": "an NVIDIA GPU's peak figures",
    "triton.testing.nvsmi": NVIDIA_ONLY,
    "triton.tools.experimental_descriptor*": OTHER_VERSIONS,
}

SUPPLIED_ANYWAY = {
    "triton.runtime.jit.KernelParam": "what JITFunction.params holds",
    "triton.runtime.jit.constexpr_function": "part of the kernel language, for scripts' own kernels",
    "triton.runtime.jit.TensorWrapper": "what triton.reinterpret gives",
    "triton.runtime.jit.reinterpret": "fp8 and unsigned integers for scripts' own kernels, from tensors of other types",
    "triton.runtime.jit.T": "the type variable of KernelInterface",
    **dict.fromkeys(
        (f"triton.testing.{n}" for n in ("Benchmark", "Mark", "assert_close", "do_bench_cudagraph", "perf_report")),
        "what scripts and kernel libraries measure their kernels with",
    ),
}


@pytest.fixture(scope="module")
def read() -> dict[str, list[str]]:
    return names_read("triton", READERS, SKIP)


def test_every_name_that_is_read_exists_or_says_why_not(read: dict[str, list[str]], triton_shim: None) -> None:
    """A new upstream name is noticed: it is either in the shim or in NOT_NEEDED with a reason."""
    _import_everything()
    missing = {name: places for name, places in read.items() if not resolves(name)}
    unexplained = {n: places[:3] for n, places in missing.items() if not _matches(n, NOT_NEEDED)}
    assert not unexplained
    stale = [pattern for pattern in NOT_NEEDED if not fnmatch.filter(missing, pattern)]
    assert not stale, "nobody reads these any more, or the shim has them"


def test_the_shim_has_no_name_that_nobody_reads(read: dict[str, list[str]], triton_shim: None) -> None:
    """What upstream no longer reads leaves the shim; the kernel language's names are `patcher.tiles`', and stay."""
    _import_everything()
    assert unread("triton", read) == set(SUPPLIED_ANYWAY)


def test_unknown_names_are_missing_as_in_any_module(triton_shim: None) -> None:
    """Probes with hasattr, and the guarded imports that come to the same, see what is not there."""
    import triton
    import triton.language as tl

    for module, name in ((triton, "knobs"), (triton, "compile"), (tl, "_experimental_make_tensor_descriptor")):
        assert not hasattr(module, name)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("triton.profiler")


def test_a_type_may_be_annotated_as_text(triton_shim: None) -> None:
    """As annotations are below ``from __future__ import annotations``."""
    import triton.language as tl
    from triton.runtime.jit import KernelParam

    for text, expected in (("tl.int64", tl.int64), ("triton.language.int8", tl.int8), ("int", "int")):
        parameter = inspect.Parameter("n", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=text)
        assert KernelParam(0, parameter).annotation == expected


def test_decorators_work_in_every_form(triton_shim: None) -> None:
    """Kernels are of the classes that torch and Unsloth test for, and keep what they are inspected for."""
    import triton
    import triton.language as tl
    from triton.runtime.autotuner import Autotuner, Heuristics

    def body(x_ptr, n, BLOCK: tl.constexpr):
        """Says what it does."""

    config = triton.Config({"BLOCK": 64}, num_warps=8)
    plain, with_options, called = triton.jit(body), triton.jit(do_not_specialize=["n"])(body), triton.jit(body)
    tuned = triton.autotune(configs=[config], key=["n"], restore_value=["x_ptr"])(plain)
    chosen = triton.heuristics({"BLOCK": lambda arguments: 64})(tuned)
    for kernel in (plain, with_options, called):
        assert isinstance(kernel, triton.JITFunction) and isinstance(kernel, triton.KernelInterface)
        assert kernel.fn is body and kernel.__name__ == "body" and kernel.__doc__ == body.__doc__
    assert [(p.num, p.name, p.is_constexpr) for p in plain.params] == [
        (0, "x_ptr", False),
        (1, "n", False),
        (2, "BLOCK", True),
    ]
    assert isinstance(tuned, Autotuner) and tuned.configs == [config] and tuned.restore_value == ["x_ptr"]
    assert isinstance(chosen, Heuristics) and chosen.fn is tuned and chosen.arg_names == ["x_ptr", "n", "BLOCK"]
    assert config.all_kwargs() == {"BLOCK": 64, "num_warps": 8, "num_stages": 3, "num_ctas": 1}


@pytest.mark.parametrize("wrapped", ["jit", "autotune", "heuristics"])
@pytest.mark.parametrize("way", ["launch", "run", "warmup"])
def test_a_kernel_that_cannot_run_raises_and_is_named(triton_shim: None, wrapped: str, way: str) -> None:
    """No launch returns quietly; the message names kernel, file and line, and the construct."""
    import triton

    @triton.jit
    def scale_rows(n):
        raise AssertionError("no part of the kernel language")

    line = scale_rows.fn.__code__.co_firstlineno + 2
    kernel: Any = scale_rows
    if wrapped != "jit":
        kernel = triton.autotune([triton.Config({})], key=["n"])(kernel)
    if wrapped == "heuristics":
        kernel = triton.heuristics({})(kernel)
    with pytest.raises(KernelNotSupported) as raised:
        kernel[(1,)](3) if way == "launch" else getattr(kernel, way)(3, grid=(1,))
    for part in ("scale_rows", f"{__file__}:{line}", "raise AssertionError", "nothing was computed"):
        assert part in str(raised.value)
    assert not isinstance(raised.value, ImportError)


def test_functions_of_the_kernel_language_raise_outside_kernels(triton_shim: None) -> None:
    """``tl.cast`` and ``libdevice.tanh`` are handed around, never computed."""
    import triton.language as tl
    from triton.language.extra import libdevice

    for call in (lambda: tl.cast(1, tl.float32), lambda: libdevice.tanh(1.0), lambda: tl.core.view(1, 2)):
        with pytest.raises(KernelNotSupported, match="outside a kernel"):
            call()
    assert tl.float32 != tl.float16 and tl.dtype("fp32") == tl.float32


def test_no_driver_is_active_without_mps(triton_shim: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers that look for the GPU catch a RuntimeError, as from Triton without a GPU."""
    import torch
    import triton

    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert triton.backends.backends == {}
    with pytest.raises(RuntimeError, match="0 active"):
        triton.runtime.driver.active.get_current_target()


def test_the_driver_is_that_of_mps(ask: Callable[..., dict[str, Any]]) -> None:
    """Libraries that ask for the device that Triton compiles for get torch's name of it, and the Mac's figures."""
    found = ask("triton", DRIVER)
    asked = {"device": 0, "torch": "mps:0", "queue": 0, "interface": "torch.cuda", "bench": "do_bench"}
    figures = {"cores": 8, "bytes": 32768, "registers": 65536}
    assert found == {"target": ["mps", "Apple M1", 32], **asked, **figures, "cleared": [True, 1 << 27], "backends": {}}


DRIVER = """
import torch, triton
from patcher.macs.mac import parse
from patcher.simulator import start
start(parse("M1 8GB"))
driver = triton.runtime.driver.active
figures = driver.utils.get_device_properties(driver.get_current_device())
cache = driver.get_empty_cache_for_benchmark()
cache.fill_(1)
driver.clear_cache(cache)
answer(target=list(driver.get_current_target()), device=driver.get_current_device(),
       torch=str(driver.get_active_torch_device()), queue=driver.get_current_stream(0),
       interface=driver.get_device_interface().__name__, bench=driver.get_benchmarker().__name__,
       cores=figures["multiprocessor_count"], bytes=figures["max_shared_mem"], registers=figures["max_num_regs"],
       cleared=[not cache.any().item(), cache.nbytes], backends=triton.backends.backends)
"""


CONSTANTS = """[
    triton.cdiv(C(10), C(3)), triton.next_power_of_2(C(5)), max(C(4), 2), min(3, C(4)), C(4) < 8, 8 > C(4), C(4) >= 5,
    C(4) <= C(4), C(4) > 4, C(4) == 4, C(4) != 4, -C(4), +C(-4), ~C(4), C(4).logical_and(0), C(0).logical_or(C(4)),
    C(6) & 3, C(6) | C(1), C(6) ^ 2, C(2.5) * 2, 7 - C(2.5), [*C((1, 2))], C((1, 2))[C(1)], C(min)(3, 2), range(C(3)),
]"""


def test_arithmetic_is_that_of_real_triton(triton_shim: None) -> None:
    """cdiv, next_power_of_2 and constants answer what Triton 3.9 answers on the same arguments."""
    import triton

    oracle = Path(sys.prefix) / "oracle"
    assert oracle.is_dir(), f"real Triton is expected in {oracle}: run make venv"
    sizes = [*range(-2, 70), 2**31 - 1, 2**31, 2**31 + 1]
    code = f"[(triton.next_power_of_2(n), triton.cdiv(n, 8), triton.cdiv(n, 3)) for n in {sizes}], {CONSTANTS}"
    run = run_python("-c", f"import triton; C = triton.language.constexpr; print({code})", PYTHONPATH=str(oracle))
    ours = eval(code, {"triton": triton, "C": triton.language.constexpr})
    assert " ".join(map(str, ours)) == run.stdout.strip()


def test_module_metadata_and_change_agree(triton_shim: None) -> None:
    """find_spec, importlib.metadata and ``__version__`` give one answer, which suits what libraries ask for."""
    import triton
    from packaging.version import Version

    version = CHANGES[0].version
    assert triton.__version__ == version == importlib.metadata.version("triton")
    assert importlib.util.find_spec("triton") is not None
    # Unsloth >= 3.0, flash-linear-attention >= 3.3; transformers gives MXFP4 on the CPU to Triton from 3.5 on.
    assert Version("3.3.0") <= Version(version) < Version("3.5.0")
    assert [int(part) for part in version.split(".")[:2]] == [3, 4]


@pytest.fixture(scope="module")
def torch_answers(ask: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    return ask(
        "triton",
        """
import torch, torch.utils._triton as t
from torch.utils.flop_counter import FlopCounterMode
import torch._inductor.codecache, torch._inductor.runtime.triton_heuristics, torch._higher_order_ops.triton_kernel_wrap
def f(x, w):
    return torch.nn.functional.silu(x @ w).sum()
x, w = torch.randn(5, 7, requires_grad=True), torch.randn(7, 3)
f(x, w).backward(); eager = x.grad.clone(); x.grad = None
compiled = torch.compile(f)(x, w); compiled.backward()
with FlopCounterMode(display=False) as counter:
    x @ w
import torch._dynamo.utils as d
answer(package=t.has_triton_package(), backend=t.has_triton(), frames=d.counters["frames"]["ok"],
       close=torch.allclose(x.grad, eager, rtol=1e-5), flops=counter.get_total_flops())
""",
    )


def test_torch_finds_the_package_and_no_backend(torch_answers: dict[str, Any]) -> None:
    """torch imports what it imports with Triton, and generates no Triton code."""
    assert torch_answers["package"] is True and torch_answers["backend"] is False


def test_torch_compile_works_on_the_cpu(torch_answers: dict[str, Any]) -> None:
    """The C++ backend compiles forward and backward; gradients differ from eager by rounding of fp32 only."""
    assert torch_answers["frames"] >= 1 and torch_answers["close"]


def test_flop_counter_counts(torch_answers: dict[str, Any]) -> None:
    """A (5, 7) x (7, 3) product is 2 * 5 * 7 * 3 operations."""
    assert torch_answers["flops"] == 210


@pytest.mark.slow
def test_trl_kernels_import_and_hub_kernels_stay_off(ask: Callable[..., dict[str, Any]]) -> None:
    """TRL's chunked log-prob is a function and no None; transformers does not take MXFP4 kernels from the hub."""
    answers = ask(
        "triton",
        """
import trl.trainer.utils as u
from transformers.utils import is_triton_available
from accelerate.utils import is_triton_available as accelerate_has
answer(function=u._ChunkedLogProbFunction is not None, mxfp4=is_triton_available("3.5.0"), accelerate=accelerate_has())
""",
    )
    assert answers == {"function": True, "mxfp4": False, "accelerate": True}


@pytest.mark.slow
def test_every_kernel_file_of_unsloth_imports(ask: Callable[..., dict[str, Any]]) -> None:
    """All modules of Unsloth and its zoo that import Triton can be imported; none runs a kernel while it is."""
    answers = ask(
        "triton",
        """
import importlib, re, unsloth, unsloth_zoo
from pathlib import Path
done, failed = [], {}
for package in (unsloth, unsloth_zoo):
    root = Path(package.__file__).parent
    for file in sorted(root.rglob("*.py")):
        parts = file.relative_to(root.parent).with_suffix("").parts
        if {"_vendored", "benchmark", "stubs"} & set(parts) or parts[-1] == "__main__":
            continue
        if re.search(r"^\\s*(import|from) triton", file.read_text(), re.M):
            name = ".".join(parts).removesuffix(".__init__")
            try:
                importlib.import_module(name)
                done.append(name)
            except Exception as error:
                failed[name] = repr(error)
import triton
answer(done=len(done), failed=failed, file=triton.__file__)
""",
        UNSLOTH_ALLOW_CPU="1",
        UNSLOTH_FORCE_GPU_PATH="1",
    )
    assert answers["failed"] == {} and answers["done"] > 40
    assert "shims/triton" in answers["file"]


def _matches(name: str, patterns: dict[str, str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _import_everything() -> None:
    root = Path(importlib.import_module("triton").__file__ or "").parent
    for file in root.rglob("*.py"):
        parts = file.relative_to(root.parent).with_suffix("").parts
        importlib.import_module(".".join(parts).removesuffix(".__init__"))
