"""Whether optional packages are installed, as the trainers of older TRL ask."""

from __future__ import annotations

from typing import Any

from patcher.engine.ledger import original


def _is_installed(answer: Any) -> bool:
    """transformers before 5 answers with a bool; since then with a pair of it and a version."""
    return bool(answer[0] if isinstance(answer, tuple) else answer)


def is_deepspeed_available() -> bool:
    """As TRL's."""
    return _is_installed(original("trl.import_utils:is_deepspeed_available")())


def is_joblib_available() -> bool:
    """As TRL's."""
    return _is_installed(original("trl.import_utils:is_joblib_available")())


def is_llm_blender_available() -> bool:
    """As TRL's."""
    return _is_installed(original("trl.import_utils:is_llm_blender_available")())


def is_math_verify_available() -> bool:
    """As TRL's."""
    return _is_installed(original("trl.import_utils:is_math_verify_available")())


def is_mergekit_available() -> bool:
    """As TRL's."""
    return _is_installed(original("trl.import_utils:is_mergekit_available")())


def is_vllm_ascend_available() -> bool:
    """As TRL's."""
    return _is_installed(original("trl.import_utils:is_vllm_ascend_available")())


def is_weave_available() -> bool:
    """As TRL's."""
    return _is_installed(original("trl.import_utils:is_weave_available")())
