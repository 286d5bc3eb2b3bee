"""``save_pretrained_gguf`` takes its converter and its quantizer from installed packages."""

from __future__ import annotations

from patcher.changes.unsloth_zoo import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = (
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="unsloth_zoo.llama_cpp:install_llama_cpp",
        replacement="patcher.replacements.unsloth_zoo.llama_cpp:install_llama_cpp",
        expects=(
            "(llama_cpp_folder=None, llama_cpp_targets=None, print_output=False, gpu_support=False,"
            " just_clone_repo=False)"
        ),
        why="it downloads a build of llama.cpp, or clones and compiles one, where wheels have all that an export needs",
        upstream=source("unsloth_zoo/llama_cpp.py", "install_llama_cpp"),
        until="install_llama_cpp takes the converter and a quantizer from installed packages",
        needed_for=None,
    ),
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="unsloth_zoo.llama_cpp:check_llama_cpp",
        replacement="patcher.replacements.unsloth_zoo.llama_cpp:check_llama_cpp",
        expects="(llama_cpp_folder=None)",
        why="a folder laid out for packages of other versions, or for another interpreter, still looks complete",
        upstream=source("unsloth_zoo/llama_cpp.py", "check_llama_cpp"),
        until="install_llama_cpp takes the converter and a quantizer from installed packages",
        needed_for=None,
    ),
)
