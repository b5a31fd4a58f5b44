"""The text of a prompt: ``{{ name }}`` is the place of a variable."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gateway.errors import InvalidRequest
from gateway.http.validation import explain
from gateway.items.schemas import SOURCES, InputFile, InputImage, InputText

__all__ = ["fill", "names_in"]

_PLACEHOLDER = re.compile(r"{{\s*(\w+)\s*}}")
_Part = InputText | InputImage | InputFile


def names_in(text: str) -> list[str]:
    """The variables that the text names, each once and in their order."""
    return list(dict.fromkeys(_PLACEHOLDER.findall(text)))


def fill(
    text: str, declared: Sequence[str], variables: Mapping[str, Any], param: str
) -> tuple[str, list[dict[str, Any]]]:
    """The text with its variables filled in, and the images and files among them.

    What a value says is never looked into for placeholders. Raises ``InvalidRequest`` for a
    variable that the text needs and isn't given, that isn't declared, or that is neither a string
    nor a part of a message; ``param`` is where the variables stand in the request.
    """
    for name in variables:
        if name not in declared:
            raise InvalidRequest(
                f"Unknown prompt variable: '{name[:100]}'.",
                param=f"{param}.{name[:100]}",
                code="unknown_parameter",
            )
    values: dict[str, str] = {}
    parts: list[dict[str, Any]] = []
    for name in names_in(text):
        where = f"{param}.{name}"
        if variables.get(name) is None:
            raise InvalidRequest(
                f"Missing prompt variable: '{name}'.",
                param=where,
                code="missing_required_parameter",
            )
        values[name], found = _value(variables[name], where)
        parts += found
    return _PLACEHOLDER.sub(lambda place: values[place[1]], text), parts


def _value(value: Any, where: str) -> tuple[str, list[dict[str, Any]]]:
    """What stands for a variable in the text, and what stands beside it."""
    if isinstance(value, str):
        return value, []
    try:
        part = msgspec.convert(value, _Part)
    except msgspec.ValidationError as error:
        found = explain(error, _Part)
        param = f"{where}.{found.param}" if found.param else where
        message = found.message.replace(
            f"'{found.param}'" if found.param else "the request body", f"'{param}'", 1
        )
        raise InvalidRequest(message, param=param, code=found.code) from None
    if isinstance(part, InputText):
        return part.text, []
    if not any(value.get(source) for source in SOURCES[value["type"]]):
        source = SOURCES[value["type"]][0]
        raise InvalidRequest(
            f"Missing required parameter: '{where}.{source}'.",
            param=f"{where}.{source}",
            code="missing_required_parameter",
        )
    return "", [dict(value)]
