"""python -m patcher drift: which changes fit a release of a library, by its text alone: none of it is executed.

`fetch` gets a release, `archives` opens it, `scope` and `names` say what its names stand for, `compare` holds the
changes of the catalogue against it, `kernels` lists its Triton kernels, `report` prints.
"""
