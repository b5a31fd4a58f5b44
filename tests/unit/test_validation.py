"""Msgspec's complaints in OpenAI's words."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import pytest
from msgspec import Meta, Struct

from gateway.errors import InvalidRequest
from gateway.http.validation import decode_request


class Inner(Struct):
    name: str


class Request(Struct):
    text: str
    number: int | None = None
    amount: float | None = None
    either: str | list[str] | None = None
    inner: Inner | None = None
    items: Annotated[list[Inner], Meta(min_length=1)] | None = None
    choice: Literal["a", "b"] | None = None
    small: Annotated[int, Meta(ge=1)] | None = None


DECODER = msgspec.json.Decoder(Request)
SAID = [
    ({}, "text", "missing_required_parameter", "Missing required parameter: 'text'."),
    (
        {"text": 5},
        "text",
        "invalid_type",
        "Invalid type for 'text': expected a string, but got an integer instead.",
    ),
    (
        {"text": None},
        "text",
        "invalid_type",
        "Invalid type for 'text': expected a string, but got null instead.",
    ),
    (
        {"text": "", "number": "x"},
        "number",
        "invalid_type",
        "Invalid type for 'number': expected an integer, but got a string instead.",
    ),
    (
        {"text": "", "amount": {}},
        "amount",
        "invalid_type",
        "Invalid type for 'amount': expected a number, but got an object instead.",
    ),
    (
        {"text": "", "either": 5},
        "either",
        "invalid_type",
        "Invalid type for 'either': expected a string or an array, but got an integer instead.",
    ),
    (
        {"text": "", "inner": {}},
        "inner.name",
        "missing_required_parameter",
        "Missing required parameter: 'inner.name'.",
    ),
    (
        {"text": "", "items": [{"name": "a"}, {"name": True}]},
        "items[1].name",
        "invalid_type",
        "Invalid type for 'items[1].name': expected a string, but got a boolean instead.",
    ),
    (
        {"text": "", "items": []},
        "items",
        "empty_array",
        "Invalid 'items': expected an array of length 1 or more, but got a shorter one instead.",
    ),
    (
        {"text": "", "choice": "c"},
        "choice",
        "invalid_value",
        "Invalid value for 'choice': 'c' is not one of 'a', 'b'.",
    ),
    (
        {"text": "", "small": 0},
        "small",
        "invalid_value",
        "Invalid value for 'small': Expected `int` >= 1.",
    ),
    (
        [],
        None,
        "invalid_type",
        "Invalid type for the request body: expected an object, but got an array instead.",
    ),
]


@pytest.mark.parametrize(("body", "param", "code", "message"), SAID)
def test_each_complaint(body, param, code, message):
    """The parameter by its path, a code, and a sentence."""
    with pytest.raises(InvalidRequest) as raised:
        decode_request(DECODER, msgspec.json.encode(body))
    assert (raised.value.param, raised.value.code) == (param, code)
    assert raised.value.message == message


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"x":' * 100_000])
def test_what_is_not_json(body):
    """Is told apart from JSON that is wrong."""
    with pytest.raises(InvalidRequest) as raised:
        decode_request(DECODER, body)
    assert (raised.value.param, raised.value.code) == (None, "invalid_json")
