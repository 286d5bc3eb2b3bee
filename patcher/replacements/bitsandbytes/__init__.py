"""What is put in place in bitsandbytes."""
