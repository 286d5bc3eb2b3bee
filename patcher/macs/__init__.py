"""Which Mac this is or which one to simulate, what is known of each, and what fits on it."""
