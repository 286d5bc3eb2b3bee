"""patch_for_mac on the real libraries, in fresh processes: every order of import, patch and undo."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Protocol

import pytest

from patcher.changes import catalogue
from patcher.engine.model import Patch, Substitute
from tests.process import ROOT, answer, run_python

ORACLE = Path(sys.prefix) / "oracle"

HEAD = """
import importlib, importlib.metadata, importlib.util, json, os, sys, time
def answer(**values):
    print("ANSWER" + json.dumps(values, default=str))
def states(handle, *names):
    return {entry["target"]: entry["state"] for entry in json.loads(handle.report().to_json())["changes"]
            if entry["state"] in names}
def refusal(call):
    try:
        call()
    except Exception as error:
        return [type(error).__name__, str(error)]
"""


class Run(Protocol):
    def __call__(self, code: str, *, path: Path | None = None, **variables: str) -> dict[str, Any]: ...


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs Python in a fresh process, in an empty folder; gives what it passed to ``answer(**values)``."""
    folder = tmp_path / "work"
    folder.mkdir()

    def fresh(code: str, *, path: Path | None = None, **variables: str) -> dict[str, Any]:
        found_first = os.pathsep.join(str(place) for place in (path, ROOT) if place is not None)
        settings = {"PYTHONPATH": found_first, **variables}
        done = run_python("-W", "ignore", "-c", HEAD + code, cwd=folder, timeout=400, **settings)
        found: dict[str, Any] = answer(done)
        return found | {"stderr": done.stderr}

    return fresh


# -- without the heavy libraries -----------------------------------------------------------------------------------


def test_patch_for_mac_takes_less_than_150_ms_and_imports_no_torch(run: Run) -> None:
    """The best of five fresh processes, in seconds of CPU: another program's load does not count. Import included."""
    code = (
        "began = time.process_time()\n"
        "from patcher import patch_for_mac\n"
        "patch_for_mac(simulate='M3 Max 36GB')\n"
        "answer(seconds=time.process_time() - began, heavy=[m for m in ('torch', 'numpy', 'rich') if m in sys.modules])"
    )
    found = [run(code) for _ in range(5)]
    assert found[0]["heavy"] == []
    assert min(one["seconds"] for one in found) < 0.150


def test_a_second_patch_remembers_nothing_of_the_first(run: Run) -> None:
    """After undo the script's memory limit is nobody's, and what is said once is said once again."""
    code = (
        "from patcher import patch_for_mac\n"
        "handle = patch_for_mac(simulate='M3 Max 36GB')\n"
        "import torch\n"
        "import torch.nn.functional as F\n"
        "from patcher.replacements.torch.memory_limit import limit\n"
        "def used():\n"
        "    for _ in range(2):\n"
        "        F.adaptive_avg_pool2d(torch.ones(1, 1, 7, 7).to('cuda'), 3)\n"
        "    print('-', file=sys.stderr)\n"
        "torch.mps.set_per_process_memory_fraction(0.5)\n"
        "used()\n"
        "first = limit().ratio\n"
        "handle.undo()\n"
        "again = patch_for_mac(simulate='M3 Max 36GB')\n"
        "used()\n"
        "answer(ratios=[first, limit().ratio])"
    )
    found = run(code)
    assert found["ratios"] == [0.5, 1.2]
    first, second, _ = found["stderr"].split("-\n")
    for said in (first, second):
        assert [said.count(text) for text in ("gets mps", "runs on the CPU")] == [1, 1]


def test_patch_and_undo_without_any_import_leave_the_process_as_it_was(run: Run) -> None:
    """Variables, import hooks, modules and metadata are those of before; patching again works."""
    found = run(
        "from patcher import patch_for_mac\n"
        "before = dict(os.environ), list(sys.meta_path), importlib.util.find_spec('triton')\n"
        "for _ in range(2):\n"
        "    handle = patch_for_mac(simulate=True)\n"
        "    import triton.language\n"
        "    inside = os.environ['PYTORCH_ENABLE_MPS_FALLBACK'], len(sys.meta_path), triton.__version__\n"
        "    inside += importlib.metadata.version('triton'), importlib.util.find_spec('triton').origin\n"
        "    handle.undo()\n"
        "after = dict(os.environ), list(sys.meta_path), importlib.util.find_spec('triton')\n"
        "left = [name for name in sys.modules if name.split('.')[0] == 'triton']\n"
        "gone = refusal(lambda: importlib.metadata.version('triton'))\n"
        "answer(same=before == after, inside=inside, hooks=len(before[1]), left=left, gone=gone[0])"
    )
    assert found["same"] and found["left"] == [] and found["gone"] == "PackageNotFoundError"
    fallback, hooks, version, distribution, origin = found["inside"]
    assert fallback == "1" and hooks == found["hooks"] + 1
    assert version == distribution and Path(origin).parts[-3:] == ("shims", "triton", "__init__.py")


def test_a_real_triton_is_not_shadowed(run: Run, tmp_path: Path) -> None:
    """Neither its module nor its version; the report says where it is installed."""
    planted = tmp_path / "planted"
    (planted / "triton").mkdir(parents=True)
    (planted / "triton" / "__init__.py").write_text("__version__ = '77.0'")
    (planted / "triton-77.0.dist-info").mkdir()
    (planted / "triton-77.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: triton\nVersion: 77.0\n")
    found = run(
        "from patcher import patch_for_mac\n"
        "handle = patch_for_mac(simulate=True)\n"
        "spec = importlib.util.find_spec('triton').origin\n"
        "import triton\n"
        "version = importlib.metadata.version('triton')\n"
        "answer(file=triton.__file__, spec=spec, version=version, text=str(handle.report()))",
        path=planted,
    )
    assert found["file"] == found["spec"] == str(planted / "triton" / "__init__.py")
    assert found["version"] == "77.0" and f"a real triton is installed: {found['file']}" in found["text"]


FAKE_UNSLOTH = "try:\n    import unsloth.kernels.utils\nexcept Exception:\n    pass\n"


@pytest.mark.parametrize("strict", [True, False])
def test_an_unsloth_of_another_shape_is_refused_at_its_import(run: Run, tmp_path: Path, strict: bool) -> None:
    """A changed kernel is named at `import unsloth` though upstream swallows exceptions; strict=False reports it."""
    kernels = tmp_path / "planted" / "unsloth" / "kernels"
    kernels.mkdir(parents=True)
    (kernels.parent / "__init__.py").write_text(FAKE_UNSLOTH)
    (kernels / "__init__.py").write_text("")
    (kernels / "utils.py").write_text(
        "def fast_dequantize(W, quant_state=None, out=None, use_global_buffer=False, new=None): pass\n"
        "def fast_gemv(X, W, quant_state, out=None): pass\n"
    )
    info = tmp_path / "planted" / "unsloth-2099.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: unsloth\nVersion: 2099.1\n")
    found = run(
        "from patcher import patch_for_mac\n"
        f"handle = patch_for_mac(simulate=True, strict={strict})\n"
        "error = refusal(lambda: importlib.import_module('unsloth'))\n"
        "answer(error=error, refused=states(handle, 'refused'))",
        path=tmp_path / "planted",
    )
    target = "unsloth.kernels.utils:fast_dequantize"
    assert target in found["refused"]
    if not strict:
        assert found["error"] is None
        message = found["stderr"]
    else:
        kind, message = found["error"]
        assert kind == "GateClosed"
    for part in (
        target,
        "unsloth 2099.1",
        "(W, quant_state=None, out=None, use_global_buffer=False, dtype=None)",
        "(W, quant_state=None, out=None, use_global_buffer=False, new=None)",
        "unsloth==2026.10.9",
    ):
        assert part in message


# -- orders of import ----------------------------------------------------------------------------------------------

ORDER = """
from patcher import patch_for_mac
for name in {first!r}:
    importlib.import_module(name)
handle = patch_for_mac(simulate="M3 Max 36GB")
again = patch_for_mac() is handle
for name in {then!r}:
    importlib.import_module(name)
import torch, transformers
device = transformers.TrainingArguments("out", optim="adamw_8bit", report_to=[]).device
ones = torch.ones(2, device="cuda").device.type
memory = torch.cuda.mem_get_info()[1]
bad, pending = states(handle, "refused", "unreviewed"), states(handle, "pending")
handle.undo()
after = refusal(lambda: torch.ones(2, device="cuda"))
answer(again=again, device=device, ones=ones, memory=memory, bad=bad, pending=pending, after=after)
"""

TRAINING = ("transformers.trainer", "transformers.modeling_utils", "transformers.generation.utils")
TRL = ("trl.trainer.utils", "trl.trainer.sft_trainer", "trl.trainer.dpo_trainer")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "then"),
    [
        ((), (*TRAINING, *TRL)),
        (("torch",), (*TRAINING, *TRL)),
        ((*TRAINING, "peft", "accelerate", "trl"), TRL),
    ],
    ids=["patch first", "torch first", "transformers, peft and trl first"],
)
def test_every_order_ends_in_the_same_state(run: Run, first: tuple[str, ...], then: tuple[str, ...]) -> None:
    """Whichever library is imported before the patch: all its changes are in place, and gone after undo."""
    found = run(ORDER.format(first=first, then=then))
    assert found["again"] and found["bad"] == {}
    assert found["device"] == "mps:0" or found["device"] == "mps"
    assert found["ones"] == "mps" and found["memory"] == 27 * 2**30
    pending = [target for target in found["pending"] if not target.startswith("torch._inductor.")]  # compiles nothing
    roots = {target.partition(":")[0].partition(".")[0] for target in pending}
    # bitsandbytes, imported by PEFT before the simulated device is there, leaves its mps operators out.
    late = {"bitsandbytes"} if "peft" in first else set()
    assert roots <= {"module unsloth", "module unsloth_zoo", "unsloth", "unsloth_zoo", "trl"} | late
    assert not [target for target in found["pending"] if target.startswith((*TRL, "trl.kernels.chunked_log"))]
    assert found["after"] is not None, "torch.ones(device='cuda') still lands on mps"


@pytest.mark.slow
def test_trl_trainers_that_were_imported_without_triton_are_named(run: Run) -> None:
    """They have taken None for their kernels: training would stop at the first step, so patch_for_mac says it now."""
    found = run(
        "import trl.trainer.utils\n"
        "from patcher import patch_for_mac\n"
        "error = refusal(lambda: patch_for_mac(simulate=True))\n"
        "handle = patch_for_mac(simulate=True, strict=False)\n"
        "answer(error=error, text=str(handle.report()))"
    )
    kind, message = found["error"]
    assert kind == "TooLate" and "trl.trainer.utils was imported without triton" in message
    assert "trl.trainer.utils was imported without triton" in found["text"]


@pytest.mark.slow
def test_a_module_that_copied_an_original_is_named_and_nothing_changes(run: Run, tmp_path: Path) -> None:
    """TooLate names the holder of torch.amp.custom_fwd; environment and import hooks are as before."""
    (tmp_path / "planted").mkdir()
    (tmp_path / "planted" / "their_layers.py").write_text("from torch.amp import custom_fwd as forward")
    found = run(
        "import their_layers\n"
        "from patcher import patch_for_mac\n"
        "before = dict(os.environ), list(sys.meta_path)\n"
        "error = refusal(lambda: patch_for_mac(simulate=True))\n"
        "same = before == (dict(os.environ), list(sys.meta_path))\n"
        "handle = patch_for_mac(simulate=True, strict=False)\n"
        "answer(error=error, same=same, text=str(handle.report()))",
        path=tmp_path / "planted",
    )
    kind, message = found["error"]
    assert kind == "TooLate" and "their_layers.forward holds torch.amp:custom_fwd" in message
    assert "nothing changed" in message and found["same"]
    assert "their_layers.forward had already copied the original and keeps it" in found["text"]


SNAPSHOT = """
for name in {modules!r}:
    importlib.import_module(name)
import torch
from types import ModuleType
from patcher.simulator import start
start("M3 Max 36GB")
ROOTS = ("torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes")

def look():
    seen = dict()
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in ROOTS and isinstance(module, ModuleType):
            seen[name + ":__class__"] = type(module)
            for key, value in list(vars(module).items()):
                seen[name + ":" + key] = value
                if isinstance(value, type):
                    seen.update({{name + ":" + key + "." + inner: held for inner, held in list(vars(value).items())}})
    return seen

def kernels():
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    return [has("aten::" + op, "CUDA") for op in ("empty.memory_format", "empty_strided", "tril_indices")]

from patcher import patch_for_mac
patch_for_mac(simulate="M3 Max 36GB", strict=False).undo()      # what the patches themselves import is imported now
outside = dict(os.environ), list(sys.meta_path), kernels()
before = look()
handle = patch_for_mac(simulate="M3 Max 36GB", strict=False)
applied, inside = states(handle, "applied"), look()
handle.undo()
after = look()
def differences(one, two):
    return [key for key in {{*one, *two}} if one.get(key) is not two.get(key)
            and not isinstance(two.get(key), ModuleType) and not key.endswith("_abc_impl")
            and not key.startswith("torch._C:_mps_")]     # the simulated device answers these, and stays
answer(changed=differences(before, after), touched=differences(before, inside), applied=applied, names=len(before),
       same=outside == (dict(os.environ), list(sys.meta_path), kernels()))
"""


@pytest.mark.slow
def test_undo_leaves_every_foreign_module_and_class_as_it_was(run: Run) -> None:
    """Every name of every imported module of six libraries, and of their classes, is the same object afterwards."""
    modules = (*TRAINING, *TRL, "peft", "accelerate", "bitsandbytes")
    found = run(SNAPSHOT.format(modules=modules))
    assert found["names"] > 100_000, "the snapshot sees the libraries"
    patched = [target for target in found["applied"] if ":" in target and "::" not in target]
    patched = [target.replace("torch:_C.", "torch._C:") for target in patched]
    assert len(patched) > 50 and set(patched) <= set(found["touched"]), "the snapshot sees the patches"
    assert found["changed"] == [] and found["same"]


@pytest.mark.slow
def test_unsloth_comes_up_on_mps_and_goes_back(run: Run) -> None:
    """The pinned Unsloth passes the gate with every change of its modules in place; undo reaches the copies too."""
    found = run(
        "from patcher import patch_for_mac\n"
        "variables = dict(os.environ)\n"
        "handle = patch_for_mac(simulate='M3 Max 36GB')\n"
        "ours = [target[1:] for target in states(handle, 'applied') if target.startswith('$')]\n"
        "import unsloth\n"
        "from unsloth.models import llama, _utils\n"
        "bad, pending = states(handle, 'refused', 'unreviewed', 'skipped'), states(handle, 'pending')\n"
        "types = unsloth.DEVICE_TYPE, _utils.DEVICE_TYPE_TORCH, unsloth.device_type.get_device_type()\n"
        "copied = llama.decode_rope_inplace.__module__\n"
        "handle.undo()\n"
        "back = llama.decode_rope_inplace.__module__\n"
        "left = {name for name in os.environ if os.environ[name] != variables.get(name)} & set(ours)\n"
        "answer(bad=bad, pending=pending, types=types, copied=copied, back=back, left=sorted(left),\n"
        "       finders=[type(f).__name__ for f in sys.meta_path if type(f).__module__.startswith('patcher')])"
    )
    long_sums = {f"aten::{name} on MPS" for name in ("linear_backward", "mm", "mm.out", "addmm", "addmm_", "addmm.out")}
    long_sums |= {f"aten::{name} on MPS" for name in ("addbmm", "addbmm_", "addbmm.out")}
    mended = {"aten::linear on MPS", "aten::exponential_ on MPS"}  # in torch 2.14
    older = {change.key for change in catalogue() if isinstance(change, Patch | Substitute) and change.before}
    older |= {f"unsloth.models._utils:torch_amp_custom_{half}" for half in ("fwd", "bwd")}  # this release has them
    older |= {"$UNSLOTH_DISABLE_AUTO_PADDING_FREE"}  # of which only earlier releases are in need
    assert set(found["bad"]) <= {"shim bitsandbytes"} | long_sums | mended | older  # an M3 adds them up rightly
    assert found["types"] == ["mps", "mps", "mps"]
    assert found["copied"].startswith("patcher.") and found["back"].startswith("unsloth.")
    assert found["left"] == [] and found["finders"] == []
    optional = (
        "unsloth.kernels.moe.",
        "trl.kernels.chunked_divergence:",
        "trl.experimental.async_",  # imported by scripts that use these trainers
        "unsloth_zoo.dataset_num_proc:",  # imported when the first data set is prepared
        "torch._inductor.codegen.mps:",  # imported when something is compiled
    )
    assert [target for target in found["pending"] if not target.startswith(optional)] == []


@pytest.mark.slow
def test_a_call_after_unsloth_names_it(run: Run) -> None:
    """The real Unsloth, imported first: TooLate says to move the line to the top."""
    assert (ORACLE / "triton").is_dir(), f"no Triton in {ORACLE}: run `make {ORACLE}`"
    found = run(
        "import unsloth\n"
        "from patcher import patch_for_mac\n"
        "answer(error=refusal(lambda: patch_for_mac(simulate=True)))",
        path=ORACLE,
        UNSLOTH_ALLOW_CPU="1",
        UNSLOTH_FORCE_GPU_PATH="1",
    )
    kind, message = found["error"]
    assert kind == "TooLate" and "after `import unsloth`" in message and "top of the script" in message


WITHOUT = """
from importlib.machinery import PathFinder
class Without:
    gone = ("unsloth", "unsloth_zoo", "peft", "bitsandbytes")
    def find_spec(self, name, path=None, target=None):
        return None if name in self.gone else PathFinder.find_spec(name, path, target)
    def find_distributions(self, context):
        return [] if context.name in self.gone else PathFinder.find_distributions(context)
sys.meta_path[sys.meta_path.index(PathFinder)] = Without()
"""


@pytest.mark.slow
def test_transformers_and_trl_alone_get_what_applies(run: Run, tmp_path: Path) -> None:
    """Without unsloth, peft and bitsandbytes nothing is refused; a version nobody read is patched as unreviewed."""
    info = tmp_path / "planted" / "transformers-5.99.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: transformers\nVersion: 5.99\n")
    found = run(
        WITHOUT + "from patcher import patch_for_mac\n"
        "handle = patch_for_mac(simulate=True)\n"
        "from trl import SFTConfig\n"
        "config = SFTConfig('out', optim='adamw_8bit', report_to=[])\n"
        "import bitsandbytes\n"
        "answer(optim=config.optim, device=config.device, bnb=bitsandbytes.__file__,\n"
        "       refused=states(handle, 'refused'),\n"
        "       unreviewed=states(handle, 'unreviewed'), reason=handle.report().to_json())",
        path=tmp_path / "planted",
    )
    assert found["refused"] == {} and "adamw_torch" in found["optim"] and found["device"].startswith("mps")
    assert Path(found["bnb"]).parts[-3:-1] == ("shims", "bitsandbytes")
    assert "transformers.training_args:TrainingArguments.__post_init__" in found["unreviewed"]
    assert {target.partition(".")[0] for target in found["unreviewed"]} == {"transformers"}
    assert '"installed": "5.99"' in found["reason"]
