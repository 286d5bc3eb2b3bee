"""The files that a model is loaded from, each looked at before the first one is read."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from patcher.checkpoints import inspection
from patcher.engine.ledger import original
from patcher.errors import CheckpointDamaged, compose

_AGAIN = "get the file again; for a model of the Hub: from_pretrained(..., force_download=True)"


def _get_resolved_checkpoint_files(*args: Any, **kwargs: Any) -> Any:
    """As upstream; raises CheckpointDamaged where a file is missing, truncated, or no weight file."""
    find = original("transformers.modeling_utils:_get_resolved_checkpoint_files")
    name = str(kwargs.get("pretrained_model_name_or_path", args[0] if args else "the checkpoint"))
    try:
        found = find(*args, **kwargs)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise _damaged(name, [f"its index of weight files is no JSON: {error}"]) from error
    except KeyError as error:
        if error.args != ("weight_map",):
            raise
        raise _damaged(name, ["its index of weight files has no weight_map"]) from error
    problems = _problems(found[0] or ())
    if problems:
        raise _damaged(name, problems)
    return found


def _problems(files: Sequence[str]) -> list[str]:
    return [f"{file} {problem}" for file in files if (problem := _problem(Path(file))) is not None]


def _problem(path: Path) -> str | None:
    if not path.is_file():
        return "is missing"
    if path.suffix == ".safetensors":
        return inspection.problem_of(path)
    if path.suffix == ".bin":
        return _problem_of_torch(path)
    return None


def _problem_of_torch(path: Path) -> str | None:
    """A torch file is a zip file with its directory at the end; a bare pickle (before torch 1.6) is left to torch."""
    with path.open("rb") as file:
        start = file.read(2)
    if not start:
        return "is empty"
    return "is truncated" if start == b"PK" and not zipfile.is_zipfile(path) else None


def _damaged(name: str, problems: Sequence[str]) -> CheckpointDamaged:
    return CheckpointDamaged(
        compose(
            "this model's files cannot be loaded",
            target=name,
            found="; ".join(problems),
            left="no weights were read",
            run=_AGAIN,
        )
    )
