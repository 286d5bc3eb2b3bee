"""Reads a wheel of torch for macOS: operators, refusals, Metal kernels, Python's side of mps, the allocator, targets.

A section is a set of lines, so that two releases differ by lines. Nothing of the wheel is imported or run.
"""

from __future__ import annotations

import ast
import hashlib
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from patcher.simulator.rules import presence
from patcher.simulator.wheels import targets
from patcher.simulator.wheels.macho import Library
from patcher.simulator.wheels.metallib import function_names
from patcher.simulator.wheels.records import Record

BINARY = "torch/lib/libtorch_cpu.dylib"
OPERATORS = "torchgen/packaged/ATen/native/native_functions.yaml"
PYTHON = ("torch/mps/", "torch/backends/mps/", "torch/_inductor/codegen/mps")
HEADERS = ("torch/include/ATen/mps/", "torch/include/c10/metal/")
KERNELS = ("metal_basic", "metal_40")
"""Sections of the binary that hold Metal libraries: for every macOS, and for macOS 26 with Metal 4."""
OUTLINED = "_OUTLINED_FUNCTION"
"""Symbols of code that functions of any files share: of it, what names MPS is the mps backend's."""
BACKENDS = ("MPS", "SparseMPS", "SparseCsrMPS")

_SOURCE = re.compile(r"/aten/src/ATen/(?:native/(?:sparse/)?)?mps/(?:\w+/)*(?P<file>\w+\.(?:mm|h|cpp))$")
_REGISTERS = re.compile(r"TORCH_LIBRARY_IMPL_init_aten_(?P<key>(?:Sparse|SparseCsr)?MPS)_\d+E")
_ALLOCATOR = re.compile(r"^__ZNK?2at3mps13HeapAllocator(?P<rest>\d.*)")
_VARIANT = re.compile(
    r"(?:_(?:u?int(?:8|16|32|64)_t|float|half|bfloat|u?char|u?short|u?int|u?long|bool|i32|i64|\d+|[a-zA-Z]+\d+"
    r"|dense|strided|inner_contiguous|cast|castout|ilp|scalar|lhs|rhs|broadcast|contiguous))+(?=_|$)"
)
"""In a kernel's name, what tells its instantiations apart: types, sizes, and TensorIterator's forms."""


_TYPE = "bool|u?char|u?short|u?int|u?long|half2?|float2?|bfloat"
_ITERATED = re.compile(rf"(?P<family>\w+?)_(?P<layout>dense|strided)_(?:{_TYPE})_(?P<type>{_TYPE})(?:_(?:{_TYPE}))?")
"""Kernels of TensorIterator: ``hypot_dense_float_float`` writes and reads float where memory has no gaps."""


def read(path: Path) -> Record:
    """What a wheel holds.

    Raises:
        KeyError: a file of torch's is not in it.
        zipfile.BadZipFile, MachOError, MetallibError: it is not what it should be.
    """
    with zipfile.ZipFile(path) as wheel:
        names = sorted(wheel.namelist())
        version = _assigned(wheel.read("torch/version.py").decode())
        listed = wheel.read(OPERATORS).decode().splitlines()
        library = Library(wheel.read(BINARY))
        python = [name for name in names if name.startswith(PYTHON) and name.endswith(".py")]
        headers = [name for name in names if name.startswith(HEADERS) and name.endswith(".h")]
        return Record(
            torch=version["__version__"],
            commit=version["git_version"],
            wheel=path.name,
            sha256=_sha256(path),
            sections={
                "operators": operators(listed),
                "registered": registered(library, listed),
                "refusals": refusals(library),
                "kernels": kernels(library),
                "types": types(library),
                "allocator": allocator(library),
                "python": {line for name in python for line in interface(name, wheel.read(name).decode())},
                "targets": targets.read(path),
                "headers": {f"{_within(name)} {_digest(wheel.read(name))}" for name in headers},
            },
        )


def operators(listed: list[str]) -> set[str]:
    """Functions of native_functions.yaml with the mps backends that have a kernel: ``add.Tensor MPS SparseMPS``."""
    kernels = {backend: presence.with_kernel(listed, backend) for backend in BACKENDS}
    return {
        " ".join([name, *(backend for backend in BACKENDS if name in kernels[backend])])
        for name in presence.parse(listed)
    }


def registered(library: Library, listed: list[str]) -> set[str]:
    """Where the binary's registrations differ from native_functions.yaml.

    ``added MPS embedding_renorm_`` is registered by hand: in torch's sources (MPSFallback.mm) what always runs on the
    CPU. ``lacking SparseMPS addmm_`` is an operator that the list promises and the binary lacks.
    """
    found: dict[str, set[str]] = {backend: set() for backend in BACKENDS}
    for symbol, texts in library.named_texts(lambda name: _REGISTERS.search(name) is not None).items():
        match = _REGISTERS.search(symbol)
        assert match is not None
        found[match["key"]] |= {text for text in texts if re.fullmatch(r"\w+(\.\w+)?", text)}
    lines = set()
    for backend, names in found.items():
        promised = presence.with_kernel(listed, backend)
        lines |= {f"added {backend} {name}" for name in names - promised}
        lines |= {f"lacking {backend} {name}" for name in promised - names}
    return lines


def refusals(library: Library) -> set[str]:
    """Sentences in the code of ATen's mps sources, behind their file; torch's assertions about itself are left out.

    Where a message is put together at run time, each part is a line.
    """
    lines = set()
    for symbol, texts in library.named_texts(lambda name: True).items():
        files = sorted({match["file"] for text in texts if (match := _SOURCE.search(text))}, key=_headers_last)
        if files:
            sentences = {text for text in texts if " " in text.strip() and "INTERNAL ASSERT" not in text}
            where = files[0]
            if symbol.startswith(OUTLINED):
                where, sentences = "several", {text for text in sentences if "MPS" in text}
            lines |= {f"{where}: {_escaped(text)}" for text in sentences if not text.startswith("/")}
    return lines


def kernels(library: Library) -> set[str]:
    """Metal kernels by family, with the number of instantiations in each of `KERNELS`: ``softmax 12 12``."""
    counts = [Counter(_VARIANT.sub("", each) for each in names) for names in _kernel_names(library)]
    families = set().union(*counts)
    return {" ".join([family, *(str(count[family]) for count in counts)]) for family in families}


def types(library: Library) -> set[str]:
    """What the kernels of TensorIterator read, by family: ``hypot bfloat float half``."""
    found: dict[str, dict[str, set[str]]] = {}
    for name in set().union(*_kernel_names(library)):
        if match := _ITERATED.fullmatch(name):
            found.setdefault(match["family"], {}).setdefault(match["layout"], set()).add(match["type"])
    whole = {family: by["dense"] for family, by in found.items() if by.keys() == {"dense", "strided"}}
    return {" ".join([family, *sorted(read)]) for family, read in whole.items()}


def _kernel_names(library: Library) -> list[list[str]]:
    """Names in each of `KERNELS`."""
    sections = (library.section(name) for name in KERNELS)
    return [function_names(library.content(section)) if section is not None else [] for section in sections]


def allocator(library: Library) -> set[str]:
    """Functions of the namespace ``at::mps::HeapAllocator``: ``MPSHeapAllocatorImpl::free_buffer``."""
    found = (_ALLOCATOR.match(function.name) for function in library.functions)
    return {name for match in found if match for name in [_demangled(match["rest"])] if "::" in name}


def interface(name: str, source: str) -> Iterator[str]:
    """Each function, class and constant of a Python file with a digest of its text: ``torch/mps seed() 0f3c62d1``."""
    tree = ast.parse(source)
    where = _within(name)
    for owner, node in _definitions(tree):
        text = ast.get_source_segment(source, node) or ""
        if isinstance(node, ast.ClassDef):
            bases = ", ".join(ast.unparse(base) for base in node.bases)
            yield f"{where} class {owner}{node.name}({bases})"
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{where} {owner}{node.name}({ast.unparse(node.args)}) {_digest(text.encode())}"
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            yield f"{where} {owner}{ast.unparse(target)} = {_digest(text.encode())}"


def _definitions(tree: ast.Module | ast.ClassDef, owner: str = "") -> Iterator[tuple[str, ast.stmt]]:
    for node in tree.body:
        yield owner, node
        if isinstance(node, ast.ClassDef):
            yield from _definitions(node, f"{owner}{node.name}.")


def _assigned(source: str) -> dict[str, str]:
    """The texts that a module assigns to names."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            found[ast.unparse(node.targets[0])] = str(node.value.value)
    return found


def _demangled(text: str) -> str:
    """The names in an Itanium symbol, from a length on: ``20MPSHeapAllocatorImpl4free...`` has two."""
    parts: list[str] = []
    while match := re.match(r"\d+", text):
        length = int(match[0])
        parts.append(text[match.end() : match.end() + length])
        text = text[match.end() + length :]
    return "::".join(parts)


def _headers_last(file: str) -> tuple[bool, str]:
    return file.endswith(".h"), file


def _within(name: str) -> str:
    """A file's path without what all paths share."""
    return name.removeprefix("torch/include/").removesuffix("/__init__.py")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:8]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
