"""Checkpoints on disk: written whole or not at all, checked before they are used. Knows no trainer.

`storage` writes and removes folders so that a kill at any moment leaves each of them whole or absent, `manifest` says
which bytes belong to a checkpoint, `inspection` tells a usable one from a damaged one.
"""
