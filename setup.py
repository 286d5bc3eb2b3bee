"""What pyproject.toml cannot say: the folder shims/ is installed as ``patcher/shims``, under no name of its own."""

from setuptools import find_namespace_packages, setup

setup(
    packages=[
        *find_namespace_packages(include=["patcher*"]),
        *(f"patcher.{name}" for name in find_namespace_packages(include=["shims*"])),
    ],
    package_dir={"patcher.shims": "shims"},
)
