"""Mathematical functions of the kernel language: torch takes the module, and nobody a function outside a kernel."""
