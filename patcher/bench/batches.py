"""Batches for the families: token numbers, pictures and sounds that a formula makes, the same on every machine."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from patcher.bench.family import Batch

if TYPE_CHECKING:
    from torch import Tensor

VOCABULARY = 256
LENGTH = 24
"""Tokens in a row: three times the sliding window of the families that have one."""

SPECIAL = 240
"""Token numbers from here on are not used as text."""
IMAGE = 250
VISION_START, VISION_END, VIDEO = 251, 252, 253


def tokens(rows: int, length: int = LENGTH) -> Tensor:
    """``(rows, length)`` token numbers without padding or specials."""
    import torch

    place = torch.arange(rows * length).reshape(rows, length)
    return 3 + (place * 37 + place * place * 11) % (SPECIAL - 3)


def pictures(rows: int, size: int = 32) -> Tensor:
    """``(rows, 3, size, size)``: waves of another direction and length in each row and channel, in -1 to 1."""
    import torch

    axis = torch.arange(size) / size
    wave = torch.arange(1, rows * 3 + 1).reshape(rows, 3, 1, 1)
    return torch.sin(2 * math.pi * (wave * axis[:, None] + (wave % 4) * axis[None, :]))


def sounds(rows: int, samples: int = 1600) -> Tensor:
    """``(rows, samples)``: a tone of rising pitch in each row, at 16 kHz, of unit variance."""
    import torch

    seconds = torch.arange(samples) / 16000
    pitch = 220 * torch.arange(1, rows + 1)[:, None]
    wave = torch.sin(2 * math.pi * pitch * seconds * (1 + seconds))
    return (wave - wave.mean(1, keepdim=True)) / wave.std(1, keepdim=True)


def language(rows: int) -> Batch:
    """Text that predicts itself; the last row is padded at its end."""
    import torch

    ids = tokens(rows)
    mask = torch.ones_like(ids)
    mask[-1, -4:] = 0
    return {"input_ids": ids * mask, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


def unpadded(rows: int) -> Batch:
    """Text that predicts itself, for models without an attention mask."""
    ids = tokens(rows)
    return {"input_ids": ids, "labels": ids.clone()}


def translation(rows: int) -> Batch:
    """Text and another text as its labels."""
    batch = language(rows)
    return {**batch, "labels": tokens(rows, 8).flip(1)}


def classified_pictures(rows: int) -> Batch:
    import torch

    return {"pixel_values": pictures(rows), "labels": torch.arange(rows) % 4}


def captioned_pictures(rows: int) -> Batch:
    text = language(rows)
    return {
        "input_ids": text["input_ids"],
        "attention_mask": text["attention_mask"],
        "pixel_values": pictures(rows),
        "return_loss": True,
    }


def captioned_films(rows: int) -> Batch:
    """As `captioned_pictures`, of two frames each."""
    batch = captioned_pictures(rows)
    return {**batch, "pixel_values": pictures(rows * 2).reshape(rows, 2, 3, 32, 32)}


def pictures_with_boxes(rows: int) -> Batch:
    """Pictures in which two objects are marked, by center, width and height."""
    import torch

    boxes = torch.tensor([[0.3, 0.3, 0.2, 0.2], [0.6, 0.5, 0.3, 0.4]])
    labels = [{"class_labels": torch.tensor([row % 4, 1]), "boxes": boxes} for row in range(rows)]
    return {"pixel_values": pictures(rows, 64), "labels": labels}


def _with_image_tokens(rows: int, count: int) -> Batch:
    """A text of which the tokens from 1 on stand for ``count`` features of a picture."""
    import torch

    text = tokens(rows, 12)
    image = torch.full((rows, count), IMAGE)
    ids = torch.cat([text[:, :1], image, text[:, 1:]], dim=1)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": ids.masked_fill(ids == IMAGE, -100),
    }


def llava(rows: int) -> Batch:
    """One picture in each row: 4 x 4 patches."""
    return {**_with_image_tokens(rows, 16), "pixel_values": pictures(rows)}


def llava_next(rows: int) -> Batch:
    """One picture in each row, whole and as one tile: 16 features, and 4 rows of 4 with a line break each."""
    import torch

    tiles = pictures(rows * 2).reshape(rows, 2, 3, 32, 32)
    return {**_with_image_tokens(rows, 36), "pixel_values": tiles, "image_sizes": torch.full((rows, 2), 32)}


def qwen_vl(rows: int) -> Batch:
    """One picture in each row, of 4 x 4 patches that two frames share: 4 features."""
    import torch

    batch = _with_image_tokens(rows, 4)
    ids = batch["input_ids"]
    ids[:, 0] = VISION_START
    ids[:, 5] = VISION_END
    patches = pictures(rows).repeat(1, 2, 1, 1).reshape(rows * 16, 3 * 2 * 8 * 8)
    return {
        **batch,
        "pixel_values": patches,
        "image_grid_thw": torch.tensor([[1, 4, 4]] * rows),
        "mm_token_type_ids": (ids == IMAGE).int(),
    }


def transcribed_sounds(rows: int) -> Batch:
    """Waveforms and what is said in them, as letters 1 to 31."""
    return {"input_values": sounds(rows), "labels": 1 + tokens(rows, 6) % 31}


def _spectrum(rows: int, bands: int, frames: int) -> Tensor:
    """``(rows, bands, frames)``: the logarithm of the power in each band over time."""
    import torch

    wave = sounds(rows, frames * 160)
    window = torch.hann_window(400)
    power = torch.stft(wave, 400, 160, window=window, return_complex=True).abs()[:, :bands, :frames]
    return torch.log10(power.clamp(min=1e-3))


def whisper(rows: int) -> Batch:
    """Spectra of 60 frames and what is said in them."""
    return {"input_features": _spectrum(rows, 16, 60), "labels": tokens(rows, 8)}


def clap(rows: int) -> Batch:
    text = language(rows)
    return {
        "input_ids": text["input_ids"],
        "attention_mask": text["attention_mask"],
        "input_features": _spectrum(rows, 16, 32).transpose(1, 2)[:, None],
        "return_loss": True,
    }
