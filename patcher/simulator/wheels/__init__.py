"""What torch's wheels for macOS hold about mps, release by release: read from the wheel, kept as text in ``data/``.

    $ python -m patcher.simulator.wheels torch-2.14.1-cp312-cp312-macosx_14_0_arm64.whl

prints what differs from the release before. `contents` reads a wheel, `records` keeps what was read.
"""
