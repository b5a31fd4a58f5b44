"""The lines of output and error files."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

from gateway.batches.claims import DoneLine, Tokens
from gateway.database.identifiers import new_id
from gateway.errors import GatewayError, UpstreamError

__all__ = ["AnswerWriter"]


class _Details(Struct, frozen=True):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(Struct, frozen=True):
    """Of chat and text completions, of embeddings and of responses."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None


class _Answer(Struct, frozen=True):
    usage: _Usage | None = None


class _Response(Struct, frozen=True):
    status_code: int
    request_id: str
    body: Raw | str


class _Line(Struct, frozen=True, kw_only=True):
    id: str
    custom_id: str
    response: _Response | None
    error: dict[str, Any] | None


_EXPIRED = {
    "code": "batch_expired",
    "message": "This request could not be executed before the completion window expired.",
}


class AnswerWriter:
    """``body_as_text`` writes an answer as a string with its JSON, LlamaStack's way."""

    def __init__(self, *, body_as_text: bool) -> None:
        self._body_as_text = body_as_text

    def answered(self, number: int, custom_id: str, body: bytes) -> DoneLine:
        """Raises ``UpstreamError`` where it can't be written into a file of JSON."""
        try:
            result = self._line(custom_id, 200, body)
        except UnicodeDecodeError:
            raise UpstreamError("The model server's answer is not UTF-8.") from None
        return DoneLine(number=number, failed=False, result=result, tokens=_tokens(body))

    def refused(self, number: int, custom_id: str, error: GatewayError) -> DoneLine:
        """OpenAI's error files hold the response itself."""
        result = self._line(custom_id, error.status, error.body())
        return DoneLine(number=number, failed=True, result=result)

    def expired(self, number: int, custom_id: str) -> DoneLine:
        line = _Line(id=new_id("batch_req_"), custom_id=custom_id, response=None, error=_EXPIRED)
        return DoneLine(number=number, failed=True, result=msgspec.json.encode(line).decode())

    def _line(self, custom_id: str, status: int, body: bytes) -> str:
        line = _Line(
            id=new_id("batch_req_"),
            custom_id=custom_id,
            response=_Response(
                status,
                new_id("req_"),
                body.decode() if self._body_as_text else Raw(_one_line(body)),
            ),
            error=None,
        )
        return msgspec.json.encode(line).decode()


def _one_line(body: bytes) -> bytes:
    """JSON has line breaks between its values only, where they mean nothing."""
    return body.replace(b"\n", b" ").replace(b"\r", b" ")


def _tokens(body: bytes) -> Tokens:
    try:
        usage = msgspec.json.decode(body, type=_Answer).usage or _Usage()
    except msgspec.DecodeError:
        return Tokens()  # in a shape that can't be read; the answer is passed on all the same
    given = usage.prompt_tokens_details or usage.input_tokens_details or _Details()
    made = usage.completion_tokens_details or usage.output_tokens_details or _Details()
    return Tokens(
        input=usage.prompt_tokens or usage.input_tokens or 0,
        cached=given.cached_tokens or 0,
        output=usage.completion_tokens or usage.output_tokens or 0,
        reasoning=made.reasoning_tokens or 0,
    )
