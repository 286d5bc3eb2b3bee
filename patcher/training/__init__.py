"""What becomes of training arguments on mps: pure functions over a table of rules."""
