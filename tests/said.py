"""What the logger ``patcher`` says in a process, kept for a test; imports nothing of the project."""

from __future__ import annotations

import logging


class Said(logging.Handler):
    """Keeps messages in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def kept() -> list[str]:
    """The messages from now on: the list grows with them."""
    handler = Said()
    logging.getLogger("patcher").addHandler(handler)
    return handler.messages
