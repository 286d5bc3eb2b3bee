"""Other releases of Unsloth, each with the libraries that are installed, in a process of its own."""
