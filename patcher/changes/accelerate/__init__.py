"""What changes in accelerate."""
