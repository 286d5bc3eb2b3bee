"""What is put in place in TRL."""
