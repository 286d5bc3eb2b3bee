"""What a Mac does, measured and written to one file: ``python verify_apple.py --calibrate``.

The same parts run on a simulated Mac, and ``python -m tests.fidelity --against FILE`` tells where it differs. Nothing
here needs the simulator, unless a Mac is simulated.
"""
