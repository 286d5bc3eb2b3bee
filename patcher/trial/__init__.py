"""A trial: one run of a script as if on a Mac, and what is to be said about it. Imports no torch.

`watch` starts the script in a process of its own and outlives it; `record` is what that process keeps account with;
`verdict` and `text` say how it went, `page` as HTML.
"""
