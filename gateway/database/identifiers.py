"""Ids and times of what is stored."""

from __future__ import annotations

import secrets
import time
import uuid

__all__ = ["long_id", "new_id", "now", "seconds", "sequence"]

_last = 0


def new_id(prefix: str) -> str:
    """``file-`` and 32 hexadecimal digits, which is also what LlamaStack accepts as an id."""
    return f"{prefix}{uuid.uuid4().hex}"


def long_id(prefix: str) -> str:
    """``conv_`` and 48 hexadecimal digits: what LlamaStack's ids of conversations, messages and
    prompts look like, and what it insists on.
    """
    return f"{prefix}{secrets.token_hex(24)}"


def now() -> int:
    """The time in seconds since the epoch, as OpenAI's objects have it."""
    return int(time.time())


def sequence() -> int:
    """The time in microseconds, later with every call in one process: what lists are ordered by."""
    global _last  # noqa: PLW0603  (one clock for the process)
    _last = max(_last + 1, time.time_ns() // 1000)
    return _last


def seconds(microseconds: int) -> int:
    """A sequence as a time of OpenAI's objects."""
    return microseconds // 1_000_000
