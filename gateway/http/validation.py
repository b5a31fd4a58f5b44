"""What is wrong with a JSON body, in OpenAI's words and with the parameter's name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from gateway.errors import InvalidRequest

__all__ = ["MAX_DEPTH", "NOT_JSON", "check_depth", "decode_request", "explain"]

NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises; the last one where arrays or objects are nested a thousand deep."""

MAX_DEPTH = 100
"""Of JSON that is stored: what could be decoded once must be readable from any call stack."""

_PATH = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<path>.*)`)?$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(?P<name>[^`]+)`")
_EXPECTED = re.compile(r"^Expected `(?P<want>.+?)`, got `(?P<got>.+?)`")
_TOO_SHORT = re.compile(r"^Expected `(?P<want>array|str|object)` of length >= (?P<least>\d+)")
_NOT_AMONG = re.compile(r"^Invalid (?:enum )?value (?P<value>'.*')$", re.DOTALL)
_INDEX = re.compile(r"\[\d*\]")
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
        raise explain(error, decoder.type) from None
    except NOT_JSON as error:
        raise InvalidRequest(
            f"The request body is not valid JSON: {error}", code="invalid_json"
        ) from None


def check_depth(value: Any, param: str) -> None:
    """Raises ``InvalidRequest`` where arrays and objects are nested too deep to be stored."""
    if _is_deep(value, MAX_DEPTH):
        raise InvalidRequest(
            f"Invalid '{param}': arrays and objects are nested more than {MAX_DEPTH} deep.",
            param=param,
            code="invalid_value",
        )


def explain(error: msgspec.ValidationError, of: Any = None) -> InvalidRequest:
    """Msgspec's complaint in OpenAI's words, with the parameter it is about.

    ``of`` is the type that was decoded; with it the values that a parameter may have are named.
    """
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
    if (
        (other := _NOT_AMONG.match(what))
        and of is not None
        and (allowed := _choices(msgspec.inspect.type_info(of), _INDEX.sub("", param).split(".")))
    ):
        listed = ", ".join(f"'{one}'" for one in dict.fromkeys(allowed))
        what = f"{other['value'][:100]} is not one of {listed}"
    return InvalidRequest(
        f"Invalid value for '{param}': {what}." if param else what,
        param=param or None,
        code="invalid_value",
    )


def _is_deep(value: Any, left: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value
    return left == 0 or any(
        _is_deep(one, left - 1) for one in inner if isinstance(one, dict | list)
    )


def _choices(info: msgspec.inspect.Type, names: Sequence[str]) -> list[Any]:
    """The values that the field at the end of this path may have, where it has a choice of them."""
    match info:
        case msgspec.inspect.UnionType(types=types):
            return [choice for one in types for choice in _choices(one, names)]
        case msgspec.inspect.LiteralType(values=values) if not names:
            return list(values)
        case msgspec.inspect.ListType(item_type=item):
            return _choices(item, names)
        case msgspec.inspect.StructType(fields=fields, tag=tag, tag_field=tag_field) if names:
            if [tag_field] == list(names):
                return [tag]
            found = [one.type for one in fields if one.encode_name == names[0]]
            return _choices(found[0], names[1:]) if found else []
    return []
