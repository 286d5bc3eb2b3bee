"""What flash-attn computes in Triton kernels."""
