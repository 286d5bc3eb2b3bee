"""What becomes of every Triton kernel of Unsloth, unsloth_zoo and TRL.

``calls/`` holds calls of their own Python, at small shapes, that launch their kernels, and launches of those that no
Python of theirs reaches. `recording` runs them through the shim and keeps every launch: its arguments before and after,
with torch operators and as a Metal shader. `replay` gives the same arguments to the same kernels in Triton's
interpreter, and compares every tensor. What comes out is held against ``tests/contract/launch_sites.toml``.
"""
