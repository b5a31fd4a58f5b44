"""Reading from an answer what telemetry wants of it, and nothing else."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

from gateway.errors import UpstreamError
from gateway.http.validation import NOT_JSON
from gateway.observability.call import ModelCall, Usage

__all__ = ["FinishedAnswer", "note", "read_answer", "read_event", "read_large_answer"]

LARGE_BYTES = 64 * 1024
_TAIL_BYTES = 4096


class Choice(Struct, frozen=True):
    finish_reason: str | None = None


class Delta(Struct, frozen=True):
    stop_reason: str | None = None


class StartedMessage(Struct, frozen=True):
    id: str | None = None
    model: str | None = None


class FinishedAnswer(Struct, frozen=True):
    """What telemetry reads from an answer or from one event of a stream; all else is skipped.

    The last three fields are Anthropic's.
    """

    id: str | None = None
    model: str | None = None
    choices: list[Choice] | None = None
    usage: Usage | None = None
    system_fingerprint: str | None = None
    stop_reason: str | None = None
    delta: Delta | None = None
    message: StartedMessage | None = None


class _Tail(Struct, frozen=True):
    usage: Usage | None = None


_answers = msgspec.json.Decoder(FinishedAnswer)
_tails = msgspec.json.Decoder(_Tail)


def read_answer(call: ModelCall, body: bytes) -> None:
    """Note usage, finish reasons and id of a JSON answer.

    Raises ``UpstreamError`` when it isn't a whole JSON object.
    """
    note(call, _read(_answers, body))


def read_large_answer(call: ModelCall, blocks: list[bytes]) -> bool:
    """Note the usage of a large answer from its last bytes; whether it was found there.

    ``…,"usage":{…}}`` parsing as the end of one object is also the proof that the answer is whole.
    Raises ``UpstreamError`` when it isn't.
    """
    tail = b""
    for block in reversed(blocks):
        tail = block[-_TAIL_BYTES:] + tail
        if len(tail) >= _TAIL_BYTES:
            break
    start = tail.rfind(b'"usage"')
    if start < 0:
        return False
    call.usage = _read(_tails, b"{" + tail[start:]).usage
    return True


def read_event(data: bytes) -> FinishedAnswer | None:
    """One event of a stream; ``None`` where it isn't an object of the known shape."""
    try:
        return _answers.decode(data)
    except NOT_JSON:
        return None


def note(call: ModelCall, answer: FinishedAnswer) -> None:
    """Keep what telemetry wants."""
    if answer.usage is not None:
        call.usage = answer.usage
    if answer.id is not None:
        call.response_id = answer.id
    if answer.model is not None:
        call.response_model = answer.model
    if answer.system_fingerprint is not None:
        call.system_fingerprint = answer.system_fingerprint
    if answer.choices:
        call.finish_reasons += [
            choice.finish_reason for choice in answer.choices if choice.finish_reason
        ]
    if answer.stop_reason is not None:
        call.finish_reasons.append(answer.stop_reason)
    if answer.delta is not None and answer.delta.stop_reason is not None:
        call.finish_reasons.append(answer.delta.stop_reason)
    if answer.message is not None:
        call.response_id = answer.message.id
        call.response_model = answer.message.model


def _read(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    try:
        try:
            return decoder.decode(body)
        except msgspec.ValidationError:
            msgspec.json.decode(body, type=dict[str, Raw])
            return decoder.type()  # whole, but in a shape that telemetry can't read
    except NOT_JSON as error:
        raise UpstreamError(
            f"The model server's answer is not the JSON it should be: {error}"
        ) from None
