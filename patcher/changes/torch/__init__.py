"""What changes in torch."""
