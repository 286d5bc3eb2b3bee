"""A seed for a counter-based generator, drawn from the generator of a device without waiting for the device."""

from __future__ import annotations

from hashlib import blake2b

import torch


def drawn_seed(device: torch.device) -> int:
    """63 bits that follow from the state of the device's generator, which goes on by one draw.

    So the same state gives the same seed again, as where a checkpoint restores the state and computes anew, and the
    next draw, whatever it is, differs. The state lies on the host.
    """
    generator = _generator(device)
    told = generator.get_state().numpy().tobytes()
    torch.empty(1, device=device).uniform_(generator=generator)
    return int.from_bytes(blake2b(told, digest_size=8).digest(), "little") >> 1


def _generator(device: torch.device) -> torch.Generator:
    if device.type == "mps":
        return torch.mps._get_default_mps_generator()
    return torch.default_generator
