"""Shader source as tokens: enough of C++'s grammar to find declarations, without understanding expressions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_TOKEN = re.compile(
    r"""
      //[^\n]*                         # comments
    | /\*.*?\*/
    | ^[ \t]*\#[^\n]*                  # preprocessor and line marks
    | "(?:\\.|[^"\\\n])*"              # literals
    | '(?:\\.|[^'\\\n])*'
    | [A-Za-z_]\w*                     # names
    | \.?\d(?:[eEpP][+-]|[\w.])*       # numbers
    | \[\[ | :: | ->
    | \s+
    | .
    """,
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)

_LINE_MARK = re.compile(r"[ \t]*#(?:line)? +(\d+) ")

OPENING = {"(": ")", "[": "]", "{": "}", "[[": "]]"}


class Tokens:
    """A source that can be read as code (without spaces and comments) and changed in place, keeping its lines."""

    def __init__(self, text: str) -> None:
        self.texts: list[str] = _TOKEN.findall(text)
        self._code = [i for i, token in enumerate(self.texts) if _is_code(token)]

    def __len__(self) -> int:
        """The number of tokens that are code."""
        return len(self._code)

    def __getitem__(self, index: int) -> str:
        """The index-th token of the code; the empty string before the begin and after the end."""
        return self.texts[self._code[index]] if 0 <= index < len(self._code) else ""

    def between(self, begin: int, end: int) -> list[str]:
        """The code tokens from begin up to, not including, end."""
        return [self.texts[i] for i in self._code[begin:end]]

    def line(self, index: int) -> int:
        """The line of the original source that the index-th token of the code is in, by the line marks before it."""
        line = 1
        for text in self.texts[: self._code[index]]:
            mark = _LINE_MARK.match(text)
            line = int(mark[1]) - 1 if mark else line + text.count("\n")
        return line

    def replace(self, begin: int, end: int, text: str = "") -> None:
        """Puts text in the place of the code from begin up to, not including, end. Line ends stay where they are.

        The indices stay valid: replaced tokens read as empty.
        """
        first, last = self._code[begin], self._code[end - 1]
        lines = "\n" * sum(token.count("\n") for token in self.texts[first : last + 1])
        for i in range(first, last + 1):
            self.texts[i] = ""
        self.texts[first] = text
        self.texts[last] += lines

    def closing(self, index: int) -> int:
        """Where the bracket that the index-th token opens is closed; len(self) if nowhere."""
        depth = 0
        for at in range(index, len(self)):
            token = self[at]
            if token in OPENING:
                depth += 2 if token == "[[" else 1
            elif token in (")", "]", "}"):
                depth -= 1
                if depth == 0:
                    return at
        return len(self)

    def statement_begin(self, index: int) -> int:
        """Where the declaration that holds the index-th token begins."""
        while index > 0 and self[index - 1] not in (";", "{", "}"):
            index -= 1
        return index

    def find(self, wanted: str, begin: int = 0) -> int:
        """The next place of a token outside brackets from begin on; len(self) if there is none."""
        at = begin
        while at < len(self) and self[at] != wanted:
            at = self.closing(at) + 1 if self[at] in OPENING else at + 1
        return min(at, len(self))

    def __str__(self) -> str:
        return "".join(self.texts)


def split(tokens: Sequence[str]) -> Iterator[list[str]]:
    """The parts of a list that commas separate outside brackets of every kind, templates' included."""
    depth = 0
    part: list[str] = []
    for token in tokens:
        depth += (token in ("(", "[", "{", "<")) + 2 * (token == "[[") - (token in (")", "]", "}", ">"))
        if token == "," and depth == 0:
            yield part
            part = []
        else:
            part.append(token)
    if part:
        yield part


def join(tokens: Sequence[str]) -> str:
    """Tokens as text again, with spaces only where two would run together."""
    text = ""
    for token in tokens:
        if text and (text[-1].isalnum() or text[-1] == "_") and (token[0].isalnum() or token[0] == "_"):
            text += " "
        text += token
    return text


def _is_code(token: str) -> bool:
    return not token.isspace() and not token.startswith(("//", "/*")) and not token.lstrip(" \t").startswith("#")
