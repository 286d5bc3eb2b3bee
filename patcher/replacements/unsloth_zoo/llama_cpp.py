"""Where Unsloth's GGUF export finds llama.cpp: the user's own, else a folder laid out from installed packages."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from patcher.engine.ledger import original
from patcher.errors import ExportFailed
from patcher.gguf import folder

_log = logging.getLogger(__name__)


def check_llama_cpp(llama_cpp_folder: Any = None) -> tuple[str, str]:
    """The quantizer's and the converter's paths; raises where there are none, or ours have become stale."""
    path = _place(llama_cpp_folder)
    if folder.is_ours(path) and not folder.is_current(path):
        raise ExportFailed(f"{path} was made for other versions of its packages, and is made again.")
    found: tuple[str, str] = original("unsloth_zoo.llama_cpp:check_llama_cpp")(str(path))
    return found


def install_llama_cpp(
    llama_cpp_folder: Any = None,
    llama_cpp_targets: Any = None,
    print_output: bool = False,
    gpu_support: bool = False,
    just_clone_repo: bool = False,
) -> Any:
    """Lays the folder out, without network and compiler; Unsloth's own way where the packages are not installed.

    A checkout (``just_clone_repo``) is asked for the converter of adapters, which the laid-out folder has too; a
    llama.cpp of the user's stays as it is, and upstream then asks for a checkout in another folder.
    """
    path = _place(llama_cpp_folder)
    absent = folder.missing()
    if not absent and not (just_clone_repo and folder.is_foreign(path)):
        return folder.lay_out(path)
    if absent:
        _log.warning(
            "GGUF export without downloads and builds needs %s: pip install 'patch-for-mac[gguf]'. Unsloth now "
            "installs llama.cpp its own way.",
            ", ".join(absent),
        )
    given = {"llama_cpp_targets": llama_cpp_targets} if llama_cpp_targets is not None else {}
    return original("unsloth_zoo.llama_cpp:install_llama_cpp")(
        str(path), print_output=print_output, gpu_support=gpu_support, just_clone_repo=just_clone_repo, **given
    )


def _place(llama_cpp_folder: Any) -> Path:
    """The folder that was named, else Unsloth's default."""
    if llama_cpp_folder is not None:
        return Path(llama_cpp_folder)
    from unsloth_zoo import llama_cpp  # type: ignore[import-untyped,unused-ignore]

    return Path(llama_cpp.LLAMA_CPP_DEFAULT_DIR)
