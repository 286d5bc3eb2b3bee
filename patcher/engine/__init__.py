"""The mechanism: what a change is, when it is due, what is in place, and how it is undone. Names no library."""
