"""What stands for upstream's installation of llama.cpp: packages where they are, else upstream's own way."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from patcher.errors import ExportFailed
from patcher.gguf import folder
from patcher.replacements.unsloth_zoo import llama_cpp as replacement


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Upstream's functions, which write down how they are called; laying out, which says where."""
    calls: list[tuple[Any, ...]] = []

    def called(*arguments: Any, **options: Any) -> tuple[str, str]:
        calls.append((*arguments, options))
        return "quantizer", "converter"

    monkeypatch.setattr(replacement, "original", lambda _: called)
    monkeypatch.setattr(folder, "lay_out", lambda path: ("ours", str(path)))
    monkeypatch.setattr(folder, "missing", lambda: ())
    return calls


def test_installed_packages_serve_every_wish(upstream: list[tuple[Any, ...]], tmp_path: Path) -> None:
    """A converter with a quantizer, and a checkout for adapters: laid out, and upstream is not asked."""
    place = tmp_path / "llama.cpp"
    assert replacement.install_llama_cpp(place) == ("ours", str(place))
    assert replacement.install_llama_cpp(place, just_clone_repo=True) == ("ours", str(place))
    assert upstream == []


def test_without_the_packages_upstream_goes_its_own_way_after_a_warning(
    upstream: list[tuple[Any, ...]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The warning names what is missing and the command; upstream's arguments are passed on."""
    monkeypatch.setattr(folder, "missing", lambda: ("libgguf",))
    with caplog.at_level(logging.WARNING):
        replacement.install_llama_cpp(tmp_path, ["llama-quantize"], print_output=True)
    assert "libgguf" in caplog.text and "pip install 'patch-for-mac[gguf]'" in caplog.text
    options = {"print_output": True, "gpu_support": False, "just_clone_repo": False}
    assert upstream == [(str(tmp_path), {**options, "llama_cpp_targets": ["llama-quantize"]})]


def test_a_checkout_of_the_users_is_upstreams_business(upstream: list[tuple[Any, ...]], tmp_path: Path) -> None:
    """Asked for a checkout where the user's llama.cpp lies, upstream decides; it is not laid over."""
    (tmp_path / "CMakeLists.txt").touch()
    assert replacement.install_llama_cpp(tmp_path, just_clone_repo=True) == ("quantizer", "converter")
    assert len(upstream) == 1


def test_a_stale_folder_is_no_llama_cpp(upstream: list[tuple[Any, ...]], tmp_path: Path) -> None:
    """Made from other versions: upstream, which takes any error for "not installed", then installs it anew."""
    (tmp_path / folder.MARKER).write_text("{}")
    with pytest.raises(ExportFailed, match="made again"):
        replacement.check_llama_cpp(tmp_path)
    assert upstream == []
    (tmp_path / folder.MARKER).unlink()
    assert replacement.check_llama_cpp(tmp_path) == ("quantizer", "converter")
