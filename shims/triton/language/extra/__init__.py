"""Functions of the kernel language that come from vendors' libraries."""

from triton.language.extra import libdevice as libdevice
