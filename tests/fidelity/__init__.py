"""PyTorch's own tests of its mps backend run over the simulated Mac, and compared with what PyTorch says of real ones.

`python -m tests.fidelity` runs them; docs/fidelity.md says what is compared, `tests.fidelity.corpora` how to add more.
"""
