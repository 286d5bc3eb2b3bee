"""Empty: torch imports this module and looks for the ``AttrsDescriptor`` of Triton 3.2, which later ones lack."""
