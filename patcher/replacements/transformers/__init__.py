"""What is put in place in transformers."""
