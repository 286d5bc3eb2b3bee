"""Writes a GGUF file with other tensor types, row by row; `gguf` reads and writes, `libgguf` has the codes.

One tensor is in memory at a time, in fp32, and its codes; rows are coded by several threads. The file appears under
its name when it is complete.
"""

from __future__ import annotations

import math
import os
import shutil
import struct
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gguf
import libgguf  # type: ignore[import-not-found,import-untyped,unused-ignore]
import numpy as np

from patcher.errors import ExportFailed
from patcher.gguf.policy import MIXTURES, PLAIN, Architecture, Chooser, Wish, in_order, needs_matrix, role_of

Matrix = Mapping[str, Any]
"""An importance matrix: by tensor, the mean square of every input; for experts one after the other."""
CHUNK = 1 << 20
"""Values that one thread codes at a time."""


def quantize(source: Path, target: Path, wish: Wish, threads: int, importance: Path | None = None) -> dict[str, str]:
    """Writes the file; gives the type of every tensor by name."""
    parts = _parts(source)
    reader = next(iter(parts.values()))
    matrix = {} if importance is None else _loaded(importance)
    if target.exists() and any(target.samefile(part) for part in parts):
        raise ExportFailed(f"{target} is the file that is read. Nothing was written: name another one.")
    tensors = {tensor.name: tensor for part in parts.values() for tensor in part.tensors}
    chooser = Chooser(architecture_of(reader), wish, frozenset(tensors))
    names = in_order(tensors)
    kinds = {name: chooser.choose(name, _shape(tensors[name]), tensors[name].tensor_type.name) for name in names}
    for name in names:
        _check(tensors[name], kinds[name])
        _check_matrix(tensors[name], kinds[name], matrix)
    _check_room(target.parent, sum(_size(tensors[name], kinds[name]) for name in names))
    partial = target.with_name(target.name + ".partial")
    try:
        _write(partial, reader, tensors, kinds, wish, threads, matrix)
        os.replace(partial, target)
    except OSError as error:
        raise ExportFailed(f"{target} could not be written: {error}. What was there before is there still.") from error
    finally:
        partial.unlink(missing_ok=True)
    return kinds


def _parts(source: Path) -> dict[Path, Any]:
    """Readers of the file, or of every part of a split one, whose first part ``source`` is."""
    reader = _opened(source)
    count = int(_value(reader, "split.count", 1))
    if count < 2:
        return {source: reader}
    first = f"-00001-of-{count:05d}.gguf"
    if not source.name.endswith(first):
        raise ExportFailed(f"{source} is a part of a split file, and not the first. Nothing was written.")
    stem = source.name.removesuffix(first)
    others = [source.with_name(f"{stem}-{number:05d}-of-{count:05d}.gguf") for number in range(2, count + 1)]
    parts = {source: reader, **{other: _opened(other) for other in others}}
    found, wanted = sum(len(part.tensors) for part in parts.values()), int(_value(reader, "split.tensors.count", 0))
    if wanted and found != wanted:
        raise ExportFailed(
            f"{source} and its other parts have {found} tensors instead of {wanted}. Nothing was written."
        )
    return parts


def _opened(source: Path) -> Any:
    try:
        return gguf.GGUFReader(source)
    except (ValueError, IndexError, OSError) as error:
        raise ExportFailed(f"{source} is no whole GGUF file: {error}. Nothing was written.") from error


def _loaded(file: Path) -> Matrix:
    try:
        found: Matrix = libgguf.load_imatrix(file)
    except (ValueError, OSError, struct.error) as error:
        raise ExportFailed(f"{file} is no importance matrix of llama.cpp: {error}. Nothing was written.") from error
    return found


def _check_matrix(tensor: Any, kind: str, matrix: Matrix) -> None:
    """Refuses a matrix of another model, and codes that would be garbage without one."""
    if kind in PLAIN or kind == tensor.tensor_type.name or role_of(tensor.name) == "embedding":
        return
    values, shape = matrix.get(tensor.name), _shape(tensor)
    if values is None and needs_matrix(tensor.name, kind):
        raise ExportFailed(f"{tensor.name} as {kind} needs an importance matrix that has it. Nothing was written.")
    if values is not None and values.size != shape[-1] * math.prod(shape[:-2]):
        raise ExportFailed(
            f"The importance matrix has {values.size} values for {tensor.name}, whose shape is {shape}: it is of "
            "another model. Nothing was written."
        )


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ExportFailed(
            f"{folder} has {free / 1e9:.2f} GB free, and the file needs {needed / 1e9:.2f} GB (no space left). Nothing "
            "was written: free space, or export to another disk."
        )


def architecture_of(reader: Any) -> Architecture:
    """What the rules ask for; a list per layer counts by its first entry, as llama.cpp does."""
    name = _value(reader, "general.architecture")

    def number(key: str, default: int = 0) -> int:
        found = _value(reader, f"{name}.{key}", default)
        return int(found[0] if isinstance(found, list) else found)

    heads = number("attention.head_count")
    return Architecture(
        name=str(name),
        layers=number("block_count"),
        heads=heads,
        kv_heads=number("attention.head_count_kv", heads),
        experts=number("expert_count"),
    )


def _value(reader: Any, key: str, default: Any = None) -> Any:
    field = reader.get_field(key)
    return default if field is None else field.contents()


def _shape(tensor: Any) -> tuple[int, ...]:
    """The shape with the row length last; GGUF counts it first."""
    return tuple(int(size) for size in reversed(tensor.shape))


def _check(tensor: Any, kind: str) -> None:
    stored = tensor.tensor_type.name
    if kind != stored and stored not in PLAIN:
        raise ExportFailed(
            f"{tensor.name} is {stored} already; quantize from an F32, F16 or BF16 file. Nothing was written."
        )


def _write(
    path: Path,
    reader: Any,
    tensors: dict[str, Any],
    kinds: dict[str, str],
    wish: Wish,
    threads: int,
    matrix: Matrix,
) -> None:
    writer = gguf.GGUFWriter(path, str(_value(reader, "general.architecture")))
    _copy_metadata(reader, writer)
    writer.add_file_type(MIXTURES[wish.mixture].number)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    if matrix:
        writer.add_uint32("quantize.imatrix.entries_count", len(matrix))
    for name, kind in kinds.items():
        stored, dtype = _stored(tensors[name], kind)
        code = gguf.GGMLQuantizationType[kind]
        writer.add_tensor_info(name, stored, dtype, _size(tensors[name], kind), raw_dtype=code)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    with ThreadPoolExecutor(max(1, threads)) as pool:
        for name, kind in kinds.items():
            writer.write_tensor_data(_coded(tensors[name], kind, pool, matrix.get(name)))
    writer.close()


def _stored(tensor: Any, kind: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """The shape and the dtype of the array that holds the tensor's codes."""
    dtype: np.dtype[Any] = np.dtype({"F32": "float32", "F16": "float16"}.get(kind, "uint8"))
    if kind == tensor.tensor_type.name:
        return tensor.data.shape, tensor.data.dtype
    shape = _shape(tensor)
    if kind in ("F32", "F16"):
        return shape, dtype
    return tuple(gguf.quant_shape_to_byte_shape(shape, gguf.GGMLQuantizationType[kind])), dtype


def _size(tensor: Any, kind: str) -> int:
    """Bytes of the codes."""
    shape, dtype = _stored(tensor, kind)
    return math.prod(shape) * dtype.itemsize


def _copy_metadata(reader: Any, writer: Any) -> None:
    replaced = ("general.architecture", "general.file_type", "general.quantization_version")
    for field in reader.fields.values():
        if field.name.startswith(("GGUF.", "split.")) or field.name in replaced:
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=inner)
    writer.data_alignment = reader.alignment


def _coded(tensor: Any, kind: str, pool: ThreadPoolExecutor, importance: Any) -> Any:
    """The tensor's values in another type; as they lie in the file where the type stays."""
    if kind == tensor.tensor_type.name:
        return tensor.data
    shape = _shape(tensor)
    values = _fp32(tensor).reshape(-1, shape[-1])
    if kind == "F32":
        return values.reshape(shape)
    if kind == "F16":
        return values.astype(np.float16).reshape(shape)
    code, rows = int(gguf.GGMLQuantizationType[kind]), shape[-2]
    if importance is not None and importance.size != len(values) // rows * shape[-1]:
        importance = None  # the embedding's, which llama.cpp leaves aside too
    weights = [None] * (len(values) // rows) if importance is None else list(importance.reshape(-1, shape[-1]))
    parts = pool.map(
        lambda part: libgguf.quantize_rows(part[0], code, part[1]),
        ((part, weights[index]) for index in range(len(weights)) for part in _rows(values[index * rows :][:rows])),
    )
    return np.concatenate(list(parts)).view(np.uint8).reshape(*shape[:-1], -1)


def _rows(values: Any) -> Iterator[Any]:
    step = max(1, CHUNK // values.shape[1])
    for start in range(0, len(values), step):
        yield values[start : start + step]


def _fp32(tensor: Any) -> Any:
    if tensor.tensor_type.name == "BF16":
        return (tensor.data.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return np.asarray(tensor.data, dtype=np.float32)
