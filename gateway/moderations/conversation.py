"""What a guard is shown of a conversation: the message that it judges, and what came before.

Guards know users and assistants, in turn, the user first. Whoever else speaks is left out, unless
it is the one that is judged: then it counts as a user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from gateway.errors import InvalidRequest

__all__ = ["Conversation", "Turn", "conversation_of", "text_turn"]

Role = Literal["user", "assistant"]

_MOST_TURNS = 9
_MOST_CHARACTERS = 16_000
"""Of the turns before the one that is judged: a guard reads less than a chat model."""

_TEXTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
_IMAGES = frozenset({"image_url", "input_image"})


class Turn(Struct, frozen=True, kw_only=True):
    """What one side said. ``images`` are URLs."""

    role: Role
    text: str
    images: tuple[str, ...] = ()

    def message(self) -> dict[str, Any]:
        """As a chat message."""
        if not self.images:
            return {"role": self.role, "content": self.text}
        parts: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": url}} for url in self.images
        ]
        if self.text:
            parts.append({"type": "text", "text": self.text})
        return {"role": self.role, "content": parts}


Conversation = Sequence[Turn]
"""At least one turn, of alternating roles, the first one a user's. The last one is judged."""


def text_turn(text: str) -> Turn:
    """A text by itself is judged as a user's."""
    return Turn(role="user", text=text)


def conversation_of(
    messages: Sequence[Mapping[str, Any]], param: str = "messages"
) -> list[Turn] | None:
    """The conversation of these chat messages; ``None`` where the last one says nothing.

    Raises ``InvalidRequest`` for a message that isn't one, and where the last one has a part that
    no guard can judge, such as audio: what nobody has looked at is not safe.
    """
    if not messages:
        return None
    at = len(messages) - 1
    judged = _turn(messages[at], f"{param}[{at}]", strict=True)
    if not judged.text.strip() and not judged.images:
        return None
    turns = [judged]
    room = _MOST_CHARACTERS
    for position in range(at - 1, -1, -1):
        message = messages[position]
        if message.get("role") not in ("user", "assistant"):
            continue
        turn = _turn(message, f"{param}[{position}]", strict=False)
        if not turn.text.strip() and not turn.images:
            continue
        turn = replace(turn, text=turn.text[-room:])
        room -= len(turn.text)
        if turn.role == turns[0].role:
            turns[0] = _joined(turn, turns[0])
        elif len(turns) > _MOST_TURNS:
            break
        else:
            turns.insert(0, turn)
        if room <= 0:
            break
    if turns[0].role == "assistant":
        turns = turns[1:] if len(turns) > 1 else [replace(turns[0], role="user")]
    return turns


def _joined(first: Turn, second: Turn) -> Turn:
    text = "\n\n".join(part for part in (first.text, second.text) if part)
    return Turn(role=second.role, text=text, images=(*first.images, *second.images))


def _turn(message: Mapping[str, Any], where: str, *, strict: bool) -> Turn:
    role: Role = "assistant" if message.get("role") == "assistant" else "user"
    content = message.get("content")
    if content is None:
        return Turn(role=role, text="")
    if isinstance(content, str):
        return Turn(role=role, text=content)
    parts = [content] if isinstance(content, Mapping) else content
    if not isinstance(parts, Sequence):
        raise _wrong(f"{where}.content", "expected a string or an array of parts")
    texts: list[str] = []
    images: list[str] = []
    for number, part in enumerate(parts):
        _read_part(part, f"{where}.content[{number}]", texts, images, strict=strict)
    return Turn(role=role, text="\n".join(texts), images=tuple(images))


def _read_part(
    part: object, where: str, texts: list[str], images: list[str], *, strict: bool
) -> None:
    if isinstance(part, str):
        texts.append(part)
        return
    if not isinstance(part, Mapping):
        raise _wrong(where, "expected an object with a 'type'")
    kind = str(part.get("type"))
    if kind in _TEXTS:
        texts.append(_string(part.get(_TEXTS[kind]), f"{where}.{_TEXTS[kind]}"))
    elif kind in _IMAGES:
        images.append(_url(part.get("image_url"), f"{where}.image_url"))
    elif strict:
        raise _wrong(f"{where}.type", f"a part of type '{kind[:40]}' can't be judged by a guard")


def _string(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise _wrong(where, "expected a string")
    return value


def _url(value: object, where: str) -> str:
    """Chat completions have it in an object, Responses bare."""
    url = value.get("url") if isinstance(value, Mapping) else value
    if not isinstance(url, str) or not url.startswith(("https://", "http://", "data:image/")):
        raise _wrong(where, "expected an http(s) URL or a data URL of an image")
    return url


def _wrong(param: str, what: str) -> InvalidRequest:
    return InvalidRequest(
        f"Invalid value for '{param}': {what}.", param=param, code="invalid_value"
    )
