"""Triton kernels as block programs: what is read, what runs, and what is refused."""
