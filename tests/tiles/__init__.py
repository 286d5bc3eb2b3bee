"""Triton kernels as block programs: what is read, what runs, and what is refused; against Triton's own interpreter.

``programs/`` holds small kernels and the cases that launch them, written against Triton's public interface only. Each
case is run once in Triton's interpreter and once through the shim, in a process each (``worker.py``), and the results
are compared (``test_language.py``). What the shim must refuse is in ``test_errors.py``.
"""
