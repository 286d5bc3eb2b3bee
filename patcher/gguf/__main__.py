"""``llama-quantize`` by another name: the part of its command line that Unsloth uses.

python -m patcher.gguf [--imatrix FILE] [--tensor-type PATTERN=TYPE] [--output-tensor-type TYPE]
                       [--token-embedding-type TYPE] model.F16.gguf model.Q4_K_M.gguf Q4_K_M [THREADS]
"""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

from patcher.errors import ExportFailed, PatcherError
from patcher.gguf.folder import CONVERTER, PACKAGES
from patcher.gguf.policy import Wish, mixture_of


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="llama-quantize", description="Quantizes a GGUF file (Patch for Mac).")
    found.add_argument("--imatrix", type=Path, metavar="FILE", help="an importance matrix of llama.cpp")
    found.add_argument("--tensor-type", action="append", default=[], metavar="PATTERN=TYPE")
    found.add_argument("--output-tensor-type", metavar="TYPE")
    found.add_argument("--token-embedding-type", metavar="TYPE")
    found.add_argument("source", type=Path)
    found.add_argument("target", type=Path)
    found.add_argument("mixture")
    found.add_argument("threads", type=int, nargs="?", default=1)
    return found


def wish_of(arguments: argparse.Namespace) -> Wish:
    """What the command line asks for."""
    patterns = tuple(text.rpartition("=")[::2] for text in arguments.tensor_type)
    return Wish(
        mixture_of(arguments.mixture),
        matrix=arguments.imatrix is not None,
        output=_upper(arguments.output_tensor_type),
        embedding=_upper(arguments.token_embedding_type),
        patterns=tuple((pattern, kind.upper()) for pattern, kind in patterns),
    )


def _check_packages() -> None:
    absent = [name for name in PACKAGES if name != CONVERTER and find_spec(name) is None]
    if absent:
        raise ExportFailed(
            f"Quantizing a GGUF file needs {' and '.join(absent)}. Nothing was written. Run: "
            "pip install 'patch-for-mac[gguf]'"
        )


def _upper(name: str | None) -> str | None:
    return name.upper() if name else None


def main() -> int:
    arguments = parser().parse_args()
    try:
        wish = wish_of(arguments)
        _check_packages()
        from patcher.gguf.quantize import quantize  # numpy, gguf: --help answers without

        kinds = quantize(arguments.source, arguments.target, wish, arguments.threads, arguments.imatrix)
    except PatcherError as error:
        print(error, file=sys.stderr)
        return 1
    for kind in sorted(set(kinds.values())):
        print(f"{kind}: {sum(found == kind for found in kinds.values())} tensors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
