"""What changes in transformers."""
