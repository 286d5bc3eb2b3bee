"""What is put in place in unsloth_zoo."""
