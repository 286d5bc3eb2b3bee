"""The kernel language of the Triton shim: what is read, what runs, and what is refused.

``programs/`` holds small kernels and the cases that launch them, written against Triton's public interface only. Each
case is run in Triton's interpreter and through the shim, in a process each (``worker.py``); the results are compared
(``test_language.py``). What the shim must refuse is in ``test_errors.py``. The modules' own tests are beside them.
"""
