"""What changes in unsloth_zoo."""
