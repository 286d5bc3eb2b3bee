"""Triton kernels run as they ship: a kernel's source becomes a typed block program, which a back end runs.

`frontend` reads the source, `program` is what it makes, `on_torch` runs that on tensors of any device, `launch` stands
behind ``kernel[grid](...)``. Only `on_torch` and `launch` know torch.
"""
