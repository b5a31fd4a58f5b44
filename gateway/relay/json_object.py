"""Setting a field of a JSON object while every other value stays byte for byte what it was."""

from __future__ import annotations

import msgspec
from msgspec import Raw


def replace_fields(body: bytes, fields: dict[str, Raw]) -> bytes:
    """The same JSON object with some top-level fields set; every other value byte for byte."""
    decoded = msgspec.json.decode(body, type=dict[str, Raw])
    decoded.update(fields)
    return msgspec.json.encode(decoded)


def rename_model(body: bytes, path: tuple[str, ...], name: Raw) -> bytes:
    """Set the model's name in an answer: at the top, or as deep as ``path`` says if it is there."""
    decoded = msgspec.json.decode(body, type=dict[str, Raw])
    key, *deeper = path
    if key not in decoded:
        return body
    decoded[key] = Raw(rename_model(bytes(decoded[key]), tuple(deeper), name)) if deeper else name
    return msgspec.json.encode(decoded)
