"""What is wrong with a JSON body, in OpenAI's words and with the parameter's name."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from gateway.errors import InvalidRequest

__all__ = ["NOT_JSON", "decode_request", "explain"]

NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises; the last one where arrays or objects are nested a thousand deep."""

_PATH = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<path>.*)`)?$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(?P<name>[^`]+)`")
_EXPECTED = re.compile(r"^Expected `(?P<want>.+?)`, got `(?P<got>.+?)`")
_TOO_SHORT = re.compile(r"^Expected `(?P<want>array|str|object)` of length >= (?P<least>\d+)")
_WORDS = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "a boolean",
    "array": "an array",
    "object": "an object",
    "null": "null",
}

T = TypeVar("T")


def decode_request(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """The request as far as its type reads it. Raises ``InvalidRequest``."""
    if not body:
        raise InvalidRequest("The request body is empty; send JSON.", code="invalid_json")
    try:
        if not body.isascii():
            body.decode("utf-8")  # the decoder skips what its type doesn't name, unlooked at
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise explain(error) from None
    except NOT_JSON as error:
        raise InvalidRequest(
            f"The request body is not valid JSON: {error}", code="invalid_json"
        ) from None


def explain(error: msgspec.ValidationError) -> InvalidRequest:
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
