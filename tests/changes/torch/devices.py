"""Everything in torch that takes a device, and the other ways to CUDA; `device_calls` calls them.

`taking_a_device` reads the names out of the installed torch, so that what a new torch adds is missed by `CALLS`.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

FORMS = ("'cuda'", "'cuda:0'", "torch.device('cuda')", "torch.device('cuda', 0)", "0")

_NN = {
    **dict.fromkeys(("Linear", "Bilinear", "LazyLinear", "LinearCrossEntropyLoss"), "2, 2"),
    **dict.fromkeys(("Embedding", "EmbeddingBag", "RNNCell", "LSTMCell", "GRUCell"), "2, 2"),
    **dict.fromkeys(("Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"), "2, 2, 1"),
    **dict.fromkeys(("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm", "LayerNorm", "RMSNorm"), "2"),
    **dict.fromkeys(("InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d"), "2, affine=True"),
    **dict.fromkeys(
        ("Transformer", "TransformerEncoderLayer", "TransformerDecoderLayer", "MultiheadAttention"), "4, 2"
    ),
    "AdaptiveLogSoftmaxWithLoss": "4, 8, [2, 4]",
    "Bilinear": "2, 2, 2",
    "GroupNorm": "1, 2",
    "PReLU": "",
    "RNNBase": "'GRU', 2, 2",
    "RNNCellBase": "2, 2, True, 1",
    "UninitializedBuffer": "",
    "UninitializedParameter": "",
    **{f"LazyConv{n}d": "2, 1" for n in (1, 2, 3)},
    **{f"LazyConvTranspose{n}d": "2, 1" for n in (1, 2, 3)},
    **{f"LazyBatchNorm{n}d": "" for n in (1, 2, 3)},
    **{f"LazyInstanceNorm{n}d": "affine=True" for n in (1, 2, 3)},
}
_WINDOWS = {"exponential": "4", "general_cosine": "4, a=[0.5, 0.5]", "general_hamming": "4"}

CALLS = {
    "torch.Event": "torch.Event(D)",
    "torch.Generator": "torch.Generator(D)",
    "torch.GradScaler": "torch.zeros(1, device=torch.GradScaler('cuda')._device)",
    "torch.Stream": "torch.Stream(D)",
    "torch.Tensor.cuda": "x.cuda(D)",
    "torch.Tensor.new_empty": "x.new_empty(2, device=D)",
    "torch.Tensor.new_empty_strided": "x.new_empty_strided((2,), (1,), device=D)",
    "torch.Tensor.new_full": "x.new_full((2,), 1.0, device=D)",
    "torch.Tensor.new_ones": "x.new_ones(2, device=D)",
    "torch.Tensor.new_tensor": "x.new_tensor([1.0], device=D)",
    "torch.Tensor.new_zeros": "x.new_zeros(2, device=D)",
    "torch.Tensor.to": "x.to(D)",
    "torch.TypedStorage": "torch.TypedStorage(2, dtype=torch.float32, device=D)",
    "torch.TypedStorage.to": "x.storage().to(device=D)",
    "torch.arange": "torch.arange(2, device=D)",
    "torch.as_tensor": "torch.as_tensor([1.0], device=D)",
    "torch.asarray": "torch.asarray([1.0], device=D)",
    "torch.bartlett_window": "torch.bartlett_window(4, device=D)",
    "torch.blackman_window": "torch.blackman_window(4, device=D)",
    "torch.empty": "torch.empty(2, device=D)",
    "torch.empty_like": "torch.empty_like(x, device=D)",
    "torch.empty_permuted": "torch.empty_permuted((2, 3), (1, 0), device=D)",
    "torch.empty_strided": "torch.empty_strided((2,), (1,), device=D)",
    "torch.eye": "torch.eye(2, device=D)",
    "torch.from_dlpack": "torch.from_dlpack(x, device=D)",
    "torch.full": "torch.full((2,), 1.0, device=D)",
    "torch.full_like": "torch.full_like(x, 1.0, device=D)",
    "torch.hamming_window": "torch.hamming_window(4, device=D)",
    "torch.hann_window": "torch.hann_window(4, device=D)",
    "torch.hub.load_state_dict_from_url": "torch.hub.load_state_dict_from_url(url, folder, map_location=D)",
    "torch.jit.load": "torch.jit.load(scripted, map_location=D).weight",
    "torch.kaiser_window": "torch.kaiser_window(4, device=D)",
    "torch.linspace": "torch.linspace(0, 1, 2, device=D)",
    "torch.load": "torch.load(file, map_location=D)",
    "torch.logspace": "torch.logspace(0, 1, 2, device=D)",
    "torch.nested.as_nested_tensor": "torch.nested.as_nested_tensor([x, y], device=D, layout=torch.jagged)",
    "torch.nested.nested_tensor": "torch.nested.nested_tensor([[1.0], [2.0, 3.0]], device=D, layout=torch.jagged)",
    "torch.nn.Module.to_empty": "torch.nn.Linear(2, 2, device='meta').to_empty(device=D).weight",
    "torch.nn.attention.flex_attention.create_block_mask": "create_block_mask(causal, 1, 1, 128, 128, D).kv_indices",
    "torch.nn.attention.flex_attention.create_mask": "create_mask(causal, 1, 1, 128, 128, D)",
    "torch.normal": "torch.normal(0.0, 1.0, (2,), device=D)",
    "torch.ones": "torch.ones(2, device=D)",
    "torch.ones_like": "torch.ones_like(x, device=D)",
    "torch.rand": "torch.rand(2, device=D)",
    "torch.rand_like": "torch.rand_like(x, device=D)",
    "torch.randint": "torch.randint(3, (2,), device=D)",
    "torch.randint_like": "torch.randint_like(x, 3, device=D)",
    "torch.randn": "torch.randn(2, device=D)",
    "torch.randn_like": "torch.randn_like(x, device=D)",
    "torch.randperm": "torch.randperm(4, device=D)",
    "torch.range": "torch.range(0, 2, device=D)",
    "torch.scalar_tensor": "torch.scalar_tensor(1.0, device=D)",
    "torch.set_default_device": "under_default(D)",
    "torch.sparse_coo_tensor": "torch.sparse_coo_tensor([[0], [1]], [1.0], (2, 2), device=D)",
    "torch.tensor": "torch.tensor([1.0], device=D)",
    "torch.tril_indices": "torch.tril_indices(2, 2, device=D)",
    "torch.triu_indices": "torch.triu_indices(2, 2, device=D)",
    "torch.zeros": "torch.zeros(2, device=D)",
    "torch.zeros_like": "torch.zeros_like(x, device=D)",
    **{
        f"torch.nn.{name}": f"first(torch.nn.{name}({arguments or ''}{', ' * bool(arguments)}device=D))"
        for name, arguments in _NN.items()
    },
    **{
        f"torch.signal.windows.{name}": f"torch.signal.windows.{name}({_WINDOWS.get(name, '4')}, device=D)"
        for name in ("bartlett", "blackman", "cosine", "gaussian", "hamming", "hann", "kaiser", "nuttall", *_WINDOWS)
    },
}
"""What takes a device, and a call of it; D is the device."""

WITHOUT_A_DEVICE = {
    "UntypedStorage": "torch.UntypedStorage(8, device='cuda')",
    "UntypedStorage.cuda": "x.untyped_storage().cuda()",
    "UntypedStorage.to": "x.untyped_storage().to(device='cuda')",
    "TypedStorage.cuda": "x.storage().cuda(0)",
    "load by a function": "torch.load(file, map_location=lambda storage, location: storage.cuda(0))",
    "load by a dictionary": "torch.load(file, map_location={'cpu': 'cuda:0'})",
    "load what CUDA saved": "torch.load(saved_on_cuda)",
    "load what CUDA saved, by a dictionary": "torch.load(saved_on_cuda, map_location={'cuda:0': 'cuda:0'})",
    "with torch.device": "under(torch.device('cuda'))",
    "Module.to": "torch.nn.Linear(1, 1).to('cuda').weight",
    "Module.to by keyword": "torch.nn.Linear(1, 1).to(device='cuda', dtype=torch.bfloat16).weight",
    "Module.to by number": "torch.nn.Linear(1, 1).to(0).weight",
    "Module.cuda": "torch.nn.Linear(1, 1).cuda(0).weight",
    "randn with a generator": "torch.randn(2, generator=torch.Generator('cuda'), device='cuda')",
    "randperm with a generator": "torch.randperm(4, generator=torch.Generator('cuda'), device='cuda')",
    "DataLoader with a generator": "shuffled(torch.Generator('cuda'))",
    "cuda.FloatTensor of a size": "torch.cuda.FloatTensor(2, 3)",
    "cuda.FloatTensor of data": "torch.cuda.FloatTensor([1.0])",
    "cuda.LongTensor": "torch.cuda.LongTensor([1])",
    "type by name": "x.type('torch.cuda.FloatTensor')",
    "type by class": "x.type(torch.cuda.HalfTensor)",
    "type by type()": "x.type(x.cuda().type())",
    "set_default_tensor_type": "under_type(torch.cuda.HalfTensor)",
    "set_default_tensor_type by name": "under_type('torch.cuda.FloatTensor')",
    "safetensors": "safetensors.torch.load_file(tensors, device='cuda')['x']",
    "numpy": "torch.from_numpy(numpy.ones(2, 'f4')).to('cuda')",
    "pickle": "pickle.loads(pickle.dumps(torch.ones(1, device='cuda')))",
}
"""Ways to CUDA that are no device argument."""

_STORAGES = ("", "BFloat16", "Bool", "Byte", "Char", "ComplexDouble", "ComplexFloat", "Double", "Float", "Half", "Int")
_STORAGES += ("Long", "QInt32", "QInt8", "QUInt2x4", "QUInt4x2", "QUInt8", "Short")

EXCEPTIONS = {
    "torch.Tensor.is_pinned": "answers False: mps pins no memory",
    "torch.Tensor.new": "refused on CUDA too, unless the tensor is there: 'legacy constructor expects device type'",
    "torch.Tensor.pin_memory": "makes a tensor on the CPU; on mps it is not pinned",
    "torch.Tensor.xpu": "another maker's device",
    "torch.TypedStorage.hpu": "another maker's device",
    "torch.TypedStorage.is_pinned": "answers about the CPU",
    "torch.TypedStorage.pin_memory": "makes a storage on the CPU",
    "torch.nn.Module.ipu": "another maker's device",
    "torch.nn.Module.mtia": "another maker's device",
    "torch.nn.Module.xpu": "another maker's device",
    "torch.empty_quantized": "mps has no quantized tensors",
    "torch.from_file": "a file is mapped into the CPU's memory, on CUDA too",
    "torch.get_device_module": "answers torch.cuda, which is answered for mps",
    "torch.sparse_bsc_tensor": "mps has no compressed sparse layouts: NotOnMac names sparse_coo_tensor",
    "torch.sparse_bsr_tensor": "mps has no compressed sparse layouts: NotOnMac names sparse_coo_tensor",
    "torch.sparse_compressed_tensor": "mps has no compressed sparse layouts: NotOnMac names sparse_coo_tensor",
    "torch.sparse_csc_tensor": "mps has no compressed sparse layouts: NotOnMac names sparse_coo_tensor",
    "torch.sparse_csr_tensor": "mps has no compressed sparse layouts: NotOnMac names sparse_coo_tensor",
    "torch.utils.data.DataLoader": "pin_memory_device names memory to pin, which mps has none of",
    **{
        f"torch.{name}Storage": "a type that torch has deprecated, of the CPU; torch.cuda has its own"
        for name in _STORAGES
    },
}
"""What takes a device and does not land on mps, and why."""

_MODULES = ("torch", "torch.hub", "torch.jit", "torch.nested", "torch.nn", "torch.nn.attention.flex_attention")
_MORE_MODULES = ("torch.nn.functional", "torch.random", "torch.signal.windows", "torch.sparse", "torch.utils.data")
_CLASSES = ("torch.nn.Module", "torch.TypedStorage", "torch.UntypedStorage")


def taking_a_device() -> set[str]:
    """The public names of torch that take a device, from its stubs and from the signatures of its Python functions."""
    folder = Path(import_module("torch").__file__ or "").parent / "_C"
    functions = {f"torch.{name}" for name in _in_stub(folder / "_VariableFunctions.pyi")}
    methods = {f"torch.{name.replace('TensorBase', 'Tensor')}" for name in _in_stub(folder / "__init__.pyi")}
    made = {name.removesuffix(".__new__").removesuffix(".__init__") for name in methods}
    known = {name for name in made if name.startswith("torch.Tensor.") or name in ("torch.Generator", "torch.Stream")}
    return {name for name in functions | known | {"torch.Event"} | set(_in_python()) if "._" not in name}


def _in_stub(file: Path) -> Iterator[str]:
    for node in ast.parse(file.read_text()).body:
        prefix = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        for inner in node.body if isinstance(node, ast.ClassDef) else [node]:
            if isinstance(inner, ast.FunctionDef):
                arguments = inner.args
                named = {a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
                if "device" in named:
                    yield prefix + inner.name


def _in_python() -> Iterator[str]:
    import torch

    holders = {name: import_module(name) for name in (*_MODULES, *_MORE_MODULES)}
    classes = {name: getattr(import_module(name.rpartition(".")[0]), name.rpartition(".")[2]) for name in _CLASSES}
    for prefix, holder in (*holders.items(), *classes.items()):
        for name, value in vars(holder).items():
            if name.startswith("_") or name == "cuda" or inspect.ismodule(value) or not callable(value):
                continue
            if prefix != "torch" and getattr(torch, name, None) is value:
                continue
            if _parameters(value) & {"device", "map_location", "pin_memory_device"}:
                yield f"{prefix}.{name}"


def _parameters(value: Any) -> set[str]:
    try:
        return set(inspect.signature(value).parameters)
    except (TypeError, ValueError):  # a C function: the stubs have it
        return set()
