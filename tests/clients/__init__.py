"""Libraries of Triton kernels that nobody here wrote: their own tests on the simulated Mac, through the shim."""
