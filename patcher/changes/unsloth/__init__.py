"""What changes in Unsloth."""
