"""What one relayed endpoint means; each slice (chat, embeddings …) defines its own."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

import msgspec
from msgspec import Raw, Struct

from gateway.errors import GatewayError, InvalidRequest, UpstreamError
from gateway.http.event_stream import error_event
from gateway.relay.call import ModelCall, Usage

__all__ = ["FinishedAnswer", "Operation", "Tee"]

_MISSING = re.compile(r"^Object missing required field `(?P<name>[^`]+)`")
_EXPECTED = re.compile(r"^Expected `(?P<want>.+?)`, got `(?P<got>.+?)`")
_PATH = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<path>.*)`)?$", re.DOTALL)
_TOO_SHORT = re.compile(r"^Expected `(?P<want>array|str|object)` of length >= (?P<least>\d+)")
_WORDS = {
    "str": "a string", "int": "an integer", "float": "a number", "bool": "a boolean",
    "array": "an array", "object": "an object", "null": "null",
}  # fmt: skip
_TAIL_BYTES = 4096
_LARGE_BYTES = 64 * 1024


class Choice(Struct, frozen=True):
    finish_reason: str | None = None


class Delta(Struct, frozen=True):
    stop_reason: str | None = None


class StartedMessage(Struct, frozen=True):
    id: str | None = None


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


class Tee(Protocol):
    """Is shown an answer as it passes, to keep it: for a trace, for a stored completion.

    A relay without one never looks at more than it needs.
    """

    def answer(self, body: bytes) -> None:
        """A plain answer, whole."""

    def event(self, data: bytes) -> None:
        """One event's data of a stream, in order."""

    def content(self) -> dict[str, str]:
        """Attribute names and the messages in and out, as JSON."""


RequestT = TypeVar("RequestT", bound=Struct)


class Operation(Generic[RequestT]):
    """A relayed endpoint.

    ``name`` is ``gen_ai.operation.name``; ``path`` the model server's own; ``kinds`` the kinds of
    models that can do it, the usual one first (empty: all); ``attributes`` gives the request's span
    attributes. ``asks_usage`` says that a stream has a usage event only on request; ``conforms`` that plain
    answers need the server's hand to fit OpenAI's schemas. ``large_answers`` says that answers are
    big and carry their usage at the end, so that only the end is read.
    ``stream_model_path`` is where an event names the model. ``error_body`` and ``error_event``
    write an error in the words of another API than OpenAI's. ``tee`` makes what keeps the content
    of a request and its answer, from the request's body. ``to_upstream`` and ``from_upstream``
    translate a request and a plain answer where the server's form is another.
    """

    def __init__(
        self,
        *,
        name: str,
        path: str,
        request: type[RequestT],
        kinds: tuple[str, ...],
        attributes: Callable[[RequestT], dict[str, Any]],
        api_type: str | None = None,
        asks_usage: bool = False,
        conforms: bool = False,
        large_answers: bool = False,
        stream_model_path: tuple[str, ...] = ("model",),
        tee: Callable[[bytes], Tee] | None = None,
        to_upstream: Callable[[RequestT], bytes] | None = None,
        from_upstream: Callable[[bytes], bytes] | None = None,
        error_body: Callable[[GatewayError], bytes] = GatewayError.body,
        error_event: Callable[[GatewayError], bytes] = error_event,
    ) -> None:
        self.name = name
        self.path = path
        self.kinds = kinds
        self.attributes = attributes
        self.api_type = api_type
        self.asks_usage = asks_usage
        self.conforms = conforms
        self.large_answers = large_answers
        self.stream_model_path = stream_model_path
        self.tee = tee
        self.to_upstream = to_upstream
        self.from_upstream = from_upstream
        self.error_body = error_body
        self.error_event = error_event
        self.request_type = request
        self._decoder = msgspec.json.Decoder(request)
        self._answers = msgspec.json.Decoder(FinishedAnswer)
        self._tails = msgspec.json.Decoder(_Tail)

    def decode(self, body: bytes) -> RequestT:
        """The request as far as the gateway reads it. Raises ``InvalidRequest``."""
        if not body:
            raise InvalidRequest("The request body is empty; send JSON.", code="invalid_json")
        try:
            return self._decoder.decode(body)
        except msgspec.ValidationError as error:
            raise _explain(error) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidRequest(
                f"The request body is not valid JSON: {error}", code="invalid_json"
            ) from None

    def read_answer(self, call: ModelCall, blocks: list[bytes]) -> bytes | None:
        """Take usage, finish reasons and id from a JSON answer.

        Returns the answer joined, or ``None`` where it is large and may go on in its blocks.
        Raises ``UpstreamError`` when it isn't whole.
        """
        if self.large_answers and sum(map(len, blocks)) > _LARGE_BYTES:
            usage = self._usage_at_end(blocks)
            if usage is not None:
                call.usage = usage
                return None
        body = blocks[0] if len(blocks) == 1 else b"".join(blocks)
        self.note(call, self._read(self._answers, body))
        return body

    def read_event(self, data: bytes) -> FinishedAnswer | None:
        """One event of a stream; ``None`` where it isn't an object of the known shape."""
        try:
            return self._answers.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None

    def note(self, call: ModelCall, answer: FinishedAnswer) -> None:
        """Keep what telemetry wants of it."""
        if answer.usage is not None:
            call.usage = answer.usage
        if answer.id is not None:
            call.response_id = answer.id
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

    def _usage_at_end(self, blocks: list[bytes]) -> Usage | None:
        """The usage of ``{…,"usage":{…}}`` from its last bytes.

        That they parse as the end of one object is also the proof that the answer is whole.
        """
        tail = b""
        for block in reversed(blocks):
            tail = block[-_TAIL_BYTES:] + tail
            if len(tail) >= _TAIL_BYTES:
                break
        start = tail.rfind(b'"usage"')
        if start < 0:
            return None
        usage: Usage | None = self._read(self._tails, b"{" + tail[start:]).usage
        return usage

    @staticmethod
    def _read(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
        try:
            try:
                return decoder.decode(body)
            except msgspec.ValidationError:
                msgspec.json.decode(body, type=dict[str, Raw])
                return decoder.type()  # whole, but in a shape that telemetry can't read
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UpstreamError(
                f"The model server's answer is not the JSON it should be: {error}"
            ) from None


def no_attributes(_: Struct) -> dict[str, Any]:
    """For operations whose requests say nothing that the conventions have a name for."""
    return {}


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


def _explain(error: msgspec.ValidationError) -> InvalidRequest:
    """Msgspec's complaint in OpenAI's words, with the parameter it is about."""
    match = _PATH.match(str(error))
    what, path = (match["what"], match["path"] or "") if match else (str(error), "")
    param = path.replace("[...]", "")
    if missing := _MISSING.match(what):
        param = f"{param}.{missing['name']}" if param else missing["name"]
        return InvalidRequest(
            f"Missing required parameter: '{param}'.",
            param=param,
            code="missing_required_parameter",
        )
    if expected := _EXPECTED.match(what):
        words = [word for word in expected["want"].split(" | ") if word != "null"]
        want = " or ".join(_WORDS.get(word, word) for word in words)
        got = _WORDS.get(expected["got"], expected["got"])
        name = f"'{param}'" if param else "the request body"
        return InvalidRequest(
            f"Invalid type for {name}: expected {want}, but got {got} instead.",
            param=param or None,
            code="invalid_type",
        )
    if short := _TOO_SHORT.match(what):
        return InvalidRequest(
            f"Invalid '{param}': expected {_WORDS[short['want']]} of length {short['least']} or "
            "more, but got a shorter one instead.",
            param=param or None,
            code="empty_array" if short["want"] == "array" else "invalid_value",
        )
    return InvalidRequest(
        f"Invalid value for '{param}': {what}." if param else what,
        param=param or None,
        code="invalid_value",
    )
