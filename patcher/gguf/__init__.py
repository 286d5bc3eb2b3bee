"""GGUF files from installed packages: what llama.cpp's checkout and its ``llama-quantize`` do for Unsloth's export.

`folder` lays out the converter as a checkout of llama.cpp has it, `policy` says which type each tensor gets, and
`quantize` writes the file. ``python -m patcher.gguf`` understands the command line of ``llama-quantize``.
"""
