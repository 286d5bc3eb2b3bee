"""What is put in place in accelerate."""
