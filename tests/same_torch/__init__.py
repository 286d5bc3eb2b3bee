"""PyTorch's databases of operators, modules and optimizers, with the patches in place and without.

`make same-torch` runs all of it, docs/same-torch.md says what it found.
"""
