"""Which variant of an op runs on mps: readable torch, or one that has proved right on this machine and is faster.

`names`: which variants and ops there are, and what the user asks for; imports no torch.
`trial`, `tolerance`: a variant against the torch variant on the CPU, forward and backward, and its time.
`findings`: what trials told, kept on disk.
`choice`: the variant that an op takes.
"""
