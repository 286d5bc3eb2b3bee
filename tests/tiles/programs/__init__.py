"""Kernels and the cases that launch them, a file for each theme; importable with Triton and with the shim.

Values are small and few: the interpreter runs every operation of every program by itself.
"""
