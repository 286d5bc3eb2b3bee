"""What is put in place in Unsloth."""
