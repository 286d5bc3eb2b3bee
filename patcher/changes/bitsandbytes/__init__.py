"""What changes in bitsandbytes."""
