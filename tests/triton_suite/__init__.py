"""Triton's own language tests, from a checkout of its repository, through the shim on the simulated Mac.

``__main__`` runs them, `plugin` is loaded into their pytest, `scaffolding` supplies what their tools import, and
``reasons.toml`` says why what fails does.
"""
