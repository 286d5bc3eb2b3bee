"""PyTorch's own operator database run over the simulated Mac, and compared with what PyTorch says about real ones.

`python -m tests.fidelity --all` runs it; docs/fidelity.md says what is compared.
"""
