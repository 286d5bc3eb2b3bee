"""What kernels are launched with besides tensors and numbers."""
