"""What is read from a macOS wheel of torch: a library that a linker made for macOS, and the data in the repository."""

from __future__ import annotations

import hashlib
import struct
import zipfile
from pathlib import Path

import pytest
import torchgen

from patcher.drift import archives
from patcher.engine.signatures import parse_signature
from patcher.engine.targets import is_expected
from patcher.errors import InvalidSwitch
from patcher.simulator.wheels import __main__ as command
from patcher.simulator.wheels import contents, records, targets
from patcher.simulator.wheels.macho import Library, MachOError, addresses_made
from patcher.simulator.wheels.metallib import MetallibError, function_names
from tests.process import run_python

SOURCE = """
extern int fail(const char *file, const char *text);
extern int put(const char *name);
__attribute__((used, section("__TEXT,metal_basic"))) static const char kernels[] = {KERNELS};
int _ZN2at6native3mps6linearEi(int n) {
  return n ? fail("/build/aten/src/ATen/native/mps/operations/Linear.mm", "linear: no such dtype ") : put("linear");
}
int _ZN2at6native3mps4gridEi(void) { return fail("/build/aten/src/ATen/mps/MPSStream.h", "two\\nlines here"); }
int _ZN2at6native6linearEi(void) { return fail("/build/aten/src/ATen/native/Linear.cpp", "the CPU's words"); }
int _ZN2at34TORCH_LIBRARY_IMPL_init_aten_MPS_2ERN5torch7LibraryE(void) { return put("add.Tensor") + put("mode"); }
int _ZN2at3mps13HeapAllocator20MPSHeapAllocatorImpl11free_bufferEPNS1_11BufferBlockE(void) { return put("x y"); }
"""

YAML = """
- func: add.Tensor(Tensor self, Tensor other) -> Tensor
  structured_delegate: add.out
- func: add.out(Tensor self, Tensor other, *, Tensor(a!) out) -> Tensor(a!)
  dispatch:
    CPU, CUDA: add_out
    MPS: add_out_mps
- func: mode(Tensor self) -> Tensor
  dispatch:
    CPU, CUDA: mode
"""

PYTHON = '''
"""torch.mps"""
LIMIT = 3


class Event(object):
    def wait(self, stream: int = 0) -> None:
        self.done = True


def seed() -> int:
    return LIMIT
'''


def metallib(*names: str) -> bytes:
    """A Metal library of functions without code."""
    entries = b""
    for name in names:
        tags = (
            b"TYPE" + struct.pack("<H", 1) + b"\2" + b"NAME" + struct.pack("<H", len(name) + 1) + name.encode() + b"\0"
        )
        entries += struct.pack("<I", len(tags) + 8) + tags + b"ENDT"
    head = b"MTLB".ljust(16, b"\0") + struct.pack("<QQQ", 88 + 4 + len(entries), 88, 4 + len(entries))
    return head.ljust(88, b"\0") + struct.pack("<I", len(names)) + entries


@pytest.fixture(scope="module")
def dylib(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A library for macOS on arm64, by the compiler and linker of the ziglang package."""
    folder = tmp_path_factory.mktemp("dylib")
    iterated = [f"hypot_{layout}_{each}_{each}" for layout in ("dense", "strided") for each in ("half", "float")]
    kernels = metallib("softmax_float", "softmax_half", "gemv_t_float_32", "scan", *iterated, "flip_dense_int_int")
    numbers = ", ".join(map(str, kernels))
    (folder / "a.c").write_text(SOURCE.replace("{KERNELS}", f"{{{numbers}}}"))
    target = ("-target", "aarch64-macos", "-shared", "-nostdlib", "-Wl,-undefined,dynamic_lookup")
    run_python("-m", "ziglang", "cc", "-O1", *target, "a.c", "-o", "a.dylib", cwd=folder)
    return (folder / "a.dylib").read_bytes()


@pytest.fixture
def wheel(dylib: bytes, tmp_path: Path) -> Path:
    """A wheel with what is read of torch's."""
    path = tmp_path / "torch-9.1.0-cp312-cp312-macosx_14_0_arm64.whl"
    files = {
        contents.BINARY: dylib,
        contents.OPERATORS: YAML,
        "torch/version.py": "__version__ = '9.1.0'\ndebug = False\ngit_version = 'c0ffee'\n",
        "torch/mps/__init__.py": PYTHON,
        "torch/cuda/__init__.py": "def seed(): ...\n",
        "torch/include/ATen/mps/MPSAllocator.h": "#pragma once\n",
        "torch-9.1.0.dist-info/METADATA": "Metadata-Version: 2.4\nName: torch\nVersion: 9.1.0\n",
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def test_a_wheel_is_read(wheel: Path) -> None:
    """Every section: what is in the wheel, and nothing of the CPU's, of CUDA's, or of torch's own assertions."""
    found = contents.read(wheel)
    assert (found.torch, found.release, found.commit, found.wheel) == ("9.1.0", "9.1", "c0ffee", wheel.name)
    assert found.sha256 == hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert found.sections["operators"] == {"add.Tensor MPS", "add.out MPS", "mode"}
    assert found.sections["registered"] == {"added MPS mode", "lacking MPS add.out"}
    assert found.sections["refusals"] == {"Linear.mm: linear: no such dtype ", "MPSStream.h: two\\nlines here"}
    assert found.sections["kernels"] == {"softmax 2 0", "gemv_t 1 0", "scan 1 0", "hypot 4 0", "flip 1 0"}
    assert found.sections["types"] == {"hypot float half"}
    assert found.types() == {"hypot": ["float", "half"]}
    assert found.sections["allocator"] == {"MPSHeapAllocatorImpl::free_buffer"}
    assert {line.rpartition(" ")[0] for line in found.sections["python"]} == {
        "torch/mps LIMIT =",
        "torch/mps class",
        "torch/mps Event.wait(self, stream: int=0)",
        "torch/mps seed()",
    }
    assert "torch/mps class Event(object)" in found.sections["python"]
    assert found.sections["targets"] == {"torch.cuda:seed ()"}
    assert {line.split(" ")[0] for line in found.sections["headers"]} == {"ATen/mps/MPSAllocator.h"}
    assert found.with_kernel() == {"add.Tensor"}
    assert found.by_hand() == {"mode"}
    assert found.functions() == {"add.Tensor", "add.out", "mode"}


def test_functions_end_where_the_next_begins(dylib: bytes) -> None:
    """Each has its own texts; together they fill the code."""
    library = Library(dylib)
    code = library.section("__text")
    assert code is not None
    assert library.functions[0].address == code.address
    assert library.functions[-1].end == code.address + code.size
    named = library.named_texts(lambda name: "linear" in name)
    assert named == {
        "__ZN2at6native3mps6linearEi": {
            "/build/aten/src/ATen/native/mps/operations/Linear.mm",
            "linear: no such dtype ",
            "linear",
        },
        "__ZN2at6native6linearEi": {"/build/aten/src/ATen/native/Linear.cpp", "the CPU's words"},
    }


def test_addresses_are_made_of_a_page_and_an_offset() -> None:
    """ADRP and ADD, forwards and backwards; ADR; and a register that has been written to since is no page any more."""
    adrp_x8, add_x0_x8, load_x8 = 0x90000008, 0x91000100, 0xF9400108

    def page(pages: int) -> int:
        return adrp_x8 | (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5

    def made(*words: int) -> list[int]:
        return list(addresses_made(struct.pack(f"<{len(words)}I", *words), 0x10008))

    assert made(page(2), add_x0_x8 | 0x123 << 10) == [0x12123]
    assert made(page(-4), add_x0_x8 | 0xFFF << 10) == [0xCFFF]
    assert made(page(2), load_x8, add_x0_x8 | 0x123 << 10) == []
    assert made(0x10000000 | 3 << 29 | 1 << 5) == [0x10008 + 7]
    assert made(0x10FFFFE0) == [0x10008 - 4]


@pytest.mark.parametrize("data", [b"", b"\xcf\xfa\xed\xfe\x07\0\0\1" + bytes(24), b"\x7fELF" + bytes(60)])
def test_other_files_are_refused(data: bytes) -> None:
    """Too short, for Intel, for Linux."""
    with pytest.raises(MachOError, match="expected a 64-bit Mach-O library for arm64, found"):
        Library(data)
    with pytest.raises(MetallibError, match="expected b'MTLB'"):
        function_names(data)


def test_a_release_is_compared_with_the_one_before(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is printed is what differs; recorded, it reads back as the wheel; changed, --check finds it."""
    folder = tmp_path / "data"
    monkeypatch.setattr(records, "FOLDER", folder)
    records.releases.cache_clear()
    records.record.cache_clear()
    old = contents.read(wheel)
    first = records.Record("9.0.0", "0", "torch-9.0.0.whl", "0", {**old.sections, "kernels": {"scan 1 0", "sort 2 0"}})
    folder.mkdir()
    records.path_of("9.0").write_text(records.written(first, None))
    try:
        assert command.main([str(wheel)]) == 0
        printed = capsys.readouterr().out
        came = "+ flip 1 0\n+ gemv_t 1 0\n+ hypot 4 0\n+ softmax 2 0\n"
        assert printed.endswith(f"after: 9.0\n\n[kernels]\n{came}- sort 2 0\n\n")
        assert command.main([str(wheel), "--check"]) == 1
        assert command.main([str(wheel), "--record"]) == 0
        records.releases.cache_clear()
        assert records.releases() == ("9.0", "9.1")
        assert records.record("9.1") == old
        assert command.main([str(wheel), "--check"]) == 0
        with records.path_of("9.1").open("a") as file:
            file.write("+ more 1 0\n")
        assert command.main([str(wheel), "--check"]) == 1
    finally:
        records.releases.cache_clear()
        records.record.cache_clear()


@pytest.mark.parametrize("release", records.releases())
def test_recorded_data_is_as_the_tool_writes_it(release: str) -> None:
    """Nothing is edited by hand: read and written again, each file is the same. ``make wheels`` reads the wheels."""
    found = records.record(release)
    assert records.written(found, records.before(release)) == records.path_of(release).read_text()
    assert found.release == release and f"torch-{found.torch}-" in found.wheel and len(found.sha256) == 64
    assert all(found.sections.values())


def test_torch_2_13_is_the_installed_torchs() -> None:
    """The list of operators in the wheel for macOS is the one that the Linux build of the same commit brings along."""
    listed = Path(torchgen.__file__).with_name("packaged").joinpath("ATen/native/native_functions.yaml").read_text()
    assert contents.operators(listed.splitlines()) == records.record("2.13").sections["operators"]


def test_what_is_known_of_the_releases() -> None:
    """Against PyTorch's sources and issues: what came in 2.14, what went, what runs on the CPU, what is not there."""
    old, new = records.record("2.13"), records.record("2.14")
    assert (old.commit[:8], new.torch) == ("cf30153c", "2.14.1")
    assert {"_ctc_loss", "_linalg_svd", "poisson"} <= new.with_kernel() - old.with_kernel()
    assert old.with_kernel() - new.with_kernel() == {"cholesky", "cholesky.out"}
    assert new.functions() - old.functions() >= {"linalg_polar", "linalg_matrix_sqrth"}
    assert old.by_hand() - new.by_hand() == {"linalg_svd", "linalg_svd.U"}
    assert {"addmm_", "pow_.Scalar"}.isdisjoint(old.with_kernel("SparseMPS"))
    dropout = "Attention.mm: scaled_dot_product_attention for MPS does not support dropout."
    assert dropout in old.sections["refusals"] & new.sections["refusals"]
    assert "MPSHeapAllocatorImpl::split_free_block" in new.sections["allocator"] - old.sections["allocator"]


@pytest.mark.parametrize("release", records.releases())
def test_changes_to_torch_fit_each_release(release: str) -> None:
    """One that does not is refused on a Mac with that torch. 2.14 gave two functions more parameters, 2.15 one."""
    lines = [line.partition(" ") for line in records.record(release).sections["targets"]]
    known = {target for target, _, _ in (line.partition(" ") for line in records.record("2.13").sections["targets"])}
    for patch in targets.patches():
        found = [text for target, _, text in lines if target == patch.target]
        if not patch.adds and (found or patch.target in known):
            assert any(is_expected(patch, parse_signature(text)) for text in found), (patch.target, found)


@pytest.mark.slow
def test_targets_of_torch_2_13_are_those_of_the_installed_torch() -> None:
    """Every change of a function that a text defines has its line: who adds one records the wheels again."""
    release = archives.installed("torch", {"torch"})
    assert release is not None
    assert targets.of(release) == records.record("2.13").sections["targets"]


def test_a_release_that_is_not_known_is_refused() -> None:
    """By name, with those that are known."""
    with pytest.raises(InvalidSwitch, match=r"(?s)expected: +torch 2.13, 2.14, 2.15.*found: +torch 2.12"):
        records.record("2.12")
