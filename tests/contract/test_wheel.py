"""What ``pip install`` puts into site-packages: the package with its data and its shims, and no other names."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.process import ROOT, run_module, run_python

pytestmark = pytest.mark.slow

TOP_LEVEL = {"patcher", "pytest_simulated_mac.py", "verify_apple.py"}
PIP = ("--quiet", "--no-deps", "--disable-pip-version-check")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the files under version control and those that are new; built from a copy, as pip leaves build/."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "source" / name)
    run_module("pip", "wheel", *PIP, "--no-build-isolation", "--wheel-dir", folder, folder / "source", cwd=folder)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """The folder into which pip has installed the wheel."""
    target = wheel.parent / "site-packages"
    run_module("pip", "install", *PIP, "--no-index", "--target", target, wheel, cwd=wheel.parent)
    return target


def test_there_are_no_other_top_level_names(wheel: Path) -> None:
    """No ``shims``, ``tests`` or ``examples`` in site-packages: the shims are within the package."""
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == TOP_LEVEL
    assert {f"patcher/shims/{name}/__init__.py" for name in ("triton", "bitsandbytes", "flash_attn")} <= set(names)


def test_every_file_of_the_package_is_in_it(wheel: Path) -> None:
    """Python, C++ of the simulated device, Metal headers and the tables of rules: the tree, file by file."""
    source = wheel.parent / "source"
    tree = {
        str(path.relative_to(source)).replace("shims/", "patcher/shims/", 1)
        for folder in ("patcher", "shims")
        for path in (source / folder).rglob("*")
        if path.is_file()
    }
    for kind in (
        "simulator/native/products.cpp",
        "simulator/metal/include",
        "simulator/metal/runtime",
        "simulator/rules",
    ):
        assert any(name.startswith(f"patcher/{kind}") for name in tree), kind
    assert tree - set(zipfile.ZipFile(wheel).namelist()) == set()


def test_an_installed_package_finds_its_shims_and_its_data(installed: Path, tmp_path: Path) -> None:
    """Imported from site-packages, it looks for shims within itself and has what the simulated Mac is built from."""
    code = """
from pathlib import Path
import patcher
from patcher.engine import imports
from patcher.simulator import build, rules
here = Path(patcher.__file__).parent
assert imports.SHIMS == here / "shims", imports.SHIMS
assert build.SOURCES.is_relative_to(here) and list(build.SOURCES.glob("*.cpp")), build.SOURCES
print(here)
"""
    found = run_python("-c", code, cwd=tmp_path, PYTHONPATH=str(installed)).stdout
    assert Path(found.strip()) == installed / "patcher"
