"""A Hub that writes down what it is given: huggingface_hub's functions that write, replaced."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
from huggingface_hub import hf_api

WRITING = ("create_repo", "create_branch", "upload_folder", "upload_file", "create_commit")


def record() -> list[dict[str, Any]]:
    """Replaces the functions and the methods; gives the list that fills with calls: name, arguments, files' sizes."""
    calls: list[dict[str, Any]] = []

    def replaced(name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            calls.append({"call": name, **_described(list(arguments), dict(options))})
            url = f"https://hub.invalid/{options.get('repo_id') or ''.join(map(str, arguments[:1]))}"
            return SimpleNamespace(repo_id=url.removeprefix("https://hub.invalid/"), commit_url=url, pr_url=None)

        return call

    for name in WRITING:
        function = replaced(name)
        setattr(hf_api, name, function)
        setattr(huggingface_hub, name, function)
        setattr(hf_api.HfApi, name, lambda _, *arguments, made=function, **options: made(*arguments, **options))
    from huggingface_hub import repocard  # copies the functions, so it comes after them

    repocard.RepoCard.validate = lambda *_, **__: None  # type: ignore[method-assign]
    for owner in (huggingface_hub, hf_api, hf_api.HfApi):
        owner.whoami = lambda *_, **__: {"name": "someone", "type": "user"}  # type: ignore[attr-defined]
    return calls


def _described(arguments: list[Any], options: dict[str, Any]) -> dict[str, Any]:
    """The call's arguments as JSON has them, and the sizes of the files that it hands over, by their path there."""
    files: dict[str, int] = {}
    folder = options.pop("folder_path", None)
    if folder is not None:
        files = {p.relative_to(folder).as_posix(): p.stat().st_size for p in Path(folder).rglob("*") if p.is_file()}
    for operation in options.pop("operations", ()):
        files[operation.path_in_repo] = operation.upload_info.size
    if "path_or_fileobj" in options:
        content = options.pop("path_or_fileobj")
        size = len(content) if isinstance(content, bytes) else Path(content).stat().st_size
        files[options["path_in_repo"]] = size
    return {"arguments": arguments, "options": {k: str(v) for k, v in options.items()}, "files": files}
