"""What flash-attn has besides attention."""
