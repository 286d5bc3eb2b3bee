"""What is put in place in torch."""
