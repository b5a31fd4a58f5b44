"""Tokens of cl100k_base, which OpenAI counts chunks in. Works offline."""

from __future__ import annotations

from typing import Protocol

import bpe_openai

__all__ = ["MAX_CHARACTERS", "Encoding", "Tokenizer"]

MAX_CHARACTERS = 900_000
"""In one call; the library refuses a million."""


class Encoding(Protocol):
    def encode_ordinary(self, text: str) -> list[int]: ...

    def decode_bytes(self, tokens: list[int]) -> bytes: ...


class Tokenizer:
    """Counts, and tells where tokens begin. Linear in the length of the text, whatever it is."""

    def __init__(self) -> None:
        self._encoding: Encoding = bpe_openai.get_encoding("cl100k_base")

    def count(self, text: str) -> int:
        """Tokens of ``text``; special tokens in it are text like any other."""
        return sum(
            len(self._encoding.encode_ordinary(text[start : start + MAX_CHARACTERS]))
            for start in range(0, len(text), MAX_CHARACTERS)
        )

    def encode(self, text: str) -> list[int]:
        """Of at most ``MAX_CHARACTERS``."""
        return self._encoding.encode_ordinary(text)

    def length(self, tokens: list[int]) -> int:
        """The number of whole characters in these tokens, which may begin or end inside one."""
        return len(self._encoding.decode_bytes(tokens).decode("utf-8", "ignore"))
