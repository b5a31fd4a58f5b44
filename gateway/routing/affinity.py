"""Which requests belong together, so that one backend's prefix cache serves them all.

A key is found without decoding more of the body than it needs; the backend that it leads to is
found by weighted rendezvous hashing: every replica of the gateway comes to the same one, and when
a backend is added or goes, only its own share of the keys moves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw, Struct

if TYPE_CHECKING:
    from gateway.settings import RoutingSettings

__all__ = ["affinity_key", "hash_of", "rank"]

Headers = Sequence[tuple[bytes, bytes]]
_Reader = Callable[[bytes, Headers], bytes | None]

_MASK = (1 << 64) - 1
_NOT_SO = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _CacheKey(Struct):
    prompt_cache_key: str | None = None


class _User(Struct):
    user: str | None = None


class _Prompt(Struct):
    system: Raw = Raw()
    messages: list[Raw] | None = None
    prompt: Raw = Raw()


class _Role(Struct):
    role: str = ""


_FIELDS: dict[str, msgspec.json.Decoder[Any]] = {
    "prompt_cache_key": msgspec.json.Decoder(_CacheKey),
    "user": msgspec.json.Decoder(_User),
}
_prompts = msgspec.json.Decoder(_Prompt)
_roles = msgspec.json.Decoder(_Role)


def affinity_key(settings: RoutingSettings, body: bytes, headers: Headers) -> int | None:
    """What this request belongs to, as 64 bits; ``None`` where it has none of what is looked for.

    A field of another type than it should be is none: to refuse it is for the model server.
    """
    for read in _readers(settings.affinity, settings.prefix_bytes):
        try:
            value = read(body, headers)
        except _NOT_SO:
            continue
        if value:
            return hash_of(value)
    return None


def hash_of(value: bytes) -> int:
    return int.from_bytes(sha256(value).digest()[:8])


def rank(key: int, seed: int, weight: int) -> float:
    """The backend of the highest rank is the key's own; ``seed`` is the backend's."""
    mixed = ((key ^ seed) * 0x9E3779B97F4A7C15) & _MASK
    mixed ^= mixed >> 32
    mixed = (mixed * 0xD6E8FEB86659FD93) & _MASK
    mixed ^= mixed >> 32
    return -weight / math.log(((mixed >> 12) + 0.5) / (1 << 52))


@lru_cache(maxsize=256)
def _readers(affinity: tuple[str, ...], prefix_bytes: int) -> tuple[_Reader, ...]:
    return tuple(_reader(kind, prefix_bytes) for kind in affinity)


def _reader(kind: str, prefix_bytes: int) -> _Reader:
    if kind == "prefix":
        return lambda body, _: _prefix(body, prefix_bytes)
    if kind.startswith("header:"):
        return partial(_header, kind.removeprefix("header:").lower().encode())
    return partial(_field, kind, f'"{kind}"'.encode(), _FIELDS[kind])


def _header(name: bytes, _: bytes, headers: Headers) -> bytes | None:
    for key, value in headers:
        if key == name:
            return value
    return None


def _field(
    name: str, quoted: bytes, decoder: msgspec.json.Decoder[Any], body: bytes, _: Headers
) -> bytes | None:
    if quoted not in body:
        return None
    text: str | None = getattr(decoder.decode(body), name)
    return text.encode() if text else None


def _prefix(body: bytes, size: int) -> bytes | None:
    """The first of what the model reads: up to the first message of a user, so that all turns of a
    conversation have the same prefix.
    """
    found = _prompts.decode(body)
    if found.messages is None:
        return bytes(found.prompt)[:size]
    parts, length = [bytes(found.system)], len(found.system)
    for message in found.messages:
        parts.append(bytes(message))
        length += len(parts[-1])
        if length >= size or _roles.decode(message).role == "user":
            break
    return b"".join(parts)[:size]
