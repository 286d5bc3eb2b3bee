"""What changes in TRL."""
