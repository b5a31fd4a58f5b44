"""The small maps that callers hang on objects: ``metadata`` and ``attributes``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gateway.errors import InvalidRequest

__all__ = ["AttributeValue", "check_attributes", "check_metadata", "check_text"]

MAX_PROPERTIES = 16
MAX_KEY = 64
MAX_VALUE = 512
AttributeValue = str | int | float | bool


def check_metadata(given: Mapping[str, Any] | None, param: str = "metadata") -> dict[str, str]:
    """Up to 16 strings of 512 characters. Raises ``InvalidRequest`` that names the one at fault."""
    for key, value in _checked(given, param):
        if not isinstance(value, str):
            raise _wrong_type(f"{param}.{key}", "a string", value)
    return dict(given or {})


def check_attributes(
    given: Mapping[str, Any] | None, param: str = "attributes"
) -> dict[str, AttributeValue]:
    """Up to 16 strings, numbers and booleans, exactly as they were given.

    Raises ``InvalidRequest`` that names the one at fault.
    """
    for key, value in _checked(given, param):
        name = f"{param}.{key}"
        if not isinstance(value, str | int | float):  # a bool is an int
            raise _wrong_type(name, "a string, a number or a boolean", value)
        if isinstance(value, int | float) and not _fits_a_double(value):
            raise InvalidRequest(
                f"Invalid '{name}': the number is out of range.", param=name, code="invalid_value"
            )
    return dict(given or {})


def check_text(given: str | None, param: str) -> str | None:
    """Raises ``InvalidRequest`` where no database keeps this text."""
    if given is not None and "\x00" in given:
        raise _unkeepable(param)
    return given


def _checked(given: Mapping[str, Any] | None, param: str) -> list[tuple[str, Any]]:
    """The properties, once their number, the keys and the length of strings are found right."""
    properties = list((given or {}).items())
    if len(properties) > MAX_PROPERTIES:
        raise InvalidRequest(
            f"Invalid '{param}': too many properties. Expected an object with at most "
            f"{MAX_PROPERTIES} properties, but got an object with {len(properties)} properties "
            "instead.",
            param=param,
            code="object_above_max_properties",
        )
    for key, value in properties:
        if len(key) > MAX_KEY:
            raise InvalidRequest(
                f"Invalid '{param}': a key is too long. Expected keys with maximum length "
                f"{MAX_KEY}, but got one with length {len(key)} instead.",
                param=param,
                code="string_above_max_length",
            )
        name = f"{param}.{key}"
        if isinstance(value, str) and len(value) > MAX_VALUE:
            raise InvalidRequest(
                f"Invalid '{name}': string too long. Expected a string with maximum length "
                f"{MAX_VALUE}, but got a string with length {len(value)} instead.",
                param=name,
                code="string_above_max_length",
            )
        if "\x00" in key or (isinstance(value, str) and "\x00" in value):
            raise _unkeepable(param)
    return properties


def _unkeepable(param: str) -> InvalidRequest:
    """PostgreSQL keeps no U+0000, and what works must not depend on the database."""
    return InvalidRequest(
        f"Invalid '{param}': text can't hold the character U+0000.",
        param=param,
        code="invalid_value",
    )


def _fits_a_double(value: float) -> bool:
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _wrong_type(name: str, want: str, got: Any) -> InvalidRequest:
    word = {type(None): "null", list: "an array", dict: "an object", bool: "a boolean"}.get(
        type(got), "a number"
    )
    return InvalidRequest(
        f"Invalid type for '{name}': expected {want}, but got {word} instead.",
        param=name,
        code="invalid_type",
    )
