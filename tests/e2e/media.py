"""Pictures and sounds as a user has them, and what they show: drawn and computed, of different sizes and lengths."""

from __future__ import annotations

from typing import Any

import numpy
from PIL import Image, ImageDraw

SHAPES = ("circle", "square", "triangle", "line")
COLOURS = ("red", "green", "blue", "white")
SIZES = ((48, 40), (64, 32), (37, 53), (96, 80), (30, 90))
RATE = 16000
TONES = (220, 330, 440, 587, 880)


def picture(index: int) -> tuple[Image.Image, str]:
    """A shape on a gradient, and the sentence that says what it is."""
    width, height = SIZES[index % len(SIZES)]
    shape, colour = SHAPES[index % 4], COLOURS[(index // 2) % 4]
    across, down = numpy.linspace(0, 255, width), numpy.linspace(0, 128, height)
    right, low = numpy.meshgrid(across, down)
    image = Image.fromarray(numpy.stack([right, low, (right + low) / 2], axis=-1).astype(numpy.uint8))
    pen = ImageDraw.Draw(image)
    box = (width // 4, height // 4, 3 * width // 4, 3 * height // 4)
    if shape == "circle":
        pen.ellipse(box, fill=colour)
    elif shape == "square":
        pen.rectangle(box, fill=colour)
    elif shape == "triangle":
        pen.polygon([(box[0], box[3]), (box[2], box[3]), (width // 2, box[1])], fill=colour)
    else:
        pen.line(box, fill=colour, width=4)
    return image, f"a {colour} {shape} near the quiet river"


def chat(index: int, answered: bool = True) -> list[dict[str, Any]]:
    """A question about a picture, with its answer."""
    image, words = picture(index)
    asked: list[dict[str, Any]] = [{"type": "image", "image": image}]
    asked.append({"type": "text", "text": "A patient reader describes"})
    turns = [{"role": "user", "content": asked}]
    if answered:
        turns.append({"role": "assistant", "content": [{"type": "text", "text": words}]})
    return turns


def sound(index: int) -> tuple[numpy.ndarray, str]:
    """A chord or a rising tone at 16 kHz, 0.4 to 0.9 seconds, and the sentence that says what it is."""
    seconds = numpy.arange(int(RATE * (0.4 + 0.1 * (index % 6)))) / RATE
    low, high = TONES[index % 5], TONES[(index * 2 + 1) % 5]
    if index % 2:
        wave = numpy.sin(2 * numpy.pi * (low + 200 * seconds) * seconds)
        words = f"a tone that rises from {low}"
    else:
        wave = 0.5 * numpy.sin(2 * numpy.pi * low * seconds) + 0.5 * numpy.sin(2 * numpy.pi * high * seconds)
        words = f"a chord of {low} and {high}"
    return (0.8 * wave).astype(numpy.float32), words
