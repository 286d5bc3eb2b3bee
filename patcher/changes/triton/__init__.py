"""What changes in triton."""
