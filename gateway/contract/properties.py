"""Which properties of OpenAI's requests and answers the document has."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from msgspec import Struct

from gateway.contract.bodies import PASSED
from gateway.responses.schemas import forwarded

__all__ = ["OpenAiProperties", "Operation", "compared"]

Fate = Literal["supported", "passed on", "ignored", "missing"]

_PART = re.compile(r"([^.\[\]]+)(\[\])?")
_FORWARDING = ("POST /responses",)
"""Whose handler sends fields that it doesn't know to the model server."""

_UNUSED = {"POST /responses": ("service_tier", "stream_options.include_obfuscation")}
"""What is read, so that a wrong type is refused, and changes nothing."""


class OpenAiProperties(Struct):
    """``openai-properties.json``: the kinds of the properties of each operation."""

    sdk: str
    operations: dict[str, dict[Literal["request", "answer"], dict[str, str]]]


class Operation(Struct):
    """What becomes of the properties of one operation."""

    name: str
    request: dict[str, Fate]
    answer: dict[str, Fate]
    other_kinds: dict[str, str]
    """Properties of the answer whose kinds are none of OpenAI's, and what they are."""

    def counts(self, side: Literal["request", "answer"]) -> Counter[Fate]:
        """How many properties have which fate."""
        return Counter((self.request if side == "request" else self.answer).values())

    def lacking(self) -> list[str]:
        """The properties that are ignored or missing, without those inside of one that is."""
        lost = [
            name
            for name, fate in [*self.request.items(), *self.answer.items()]
            if fate in ("ignored", "missing")
        ]
        return [name for name in lost if not any(_is_inside(name, one) for one in lost)]


def compared(document: Mapping[str, Any], theirs: OpenAiProperties) -> list[Operation]:
    """OpenAI's operations that the document has, property by property."""
    paths = {_anonymous(path): one for path, one in document["paths"].items()}
    found = []
    for name, sides in theirs.operations.items():
        method, _, path = name.partition(" ")
        operation = paths[_anonymous(f"/v1{path}")][method.lower()]
        reader = _Reader(document["components"]["schemas"])
        answer = _body(operation["responses"]["200"])
        fates = {one: _fate(reader, answer, one) for one in sides["answer"]}
        kinds = {
            one: "|".join(sorted(ours))
            for one, theirs_ in sides["answer"].items()
            if fates[one] == "supported"
            and not _fits(ours := reader.kinds(answer, one), set(theirs_.split("|")))
        }
        request = {one: _fate_of_request(reader, operation, name, one) for one in sides["request"]}
        found.append(Operation(name, request, fates, kinds))
    return found


def _fate(reader: _Reader, schema: Any, name: str) -> Fate:
    return "supported" if reader.has(schema, name) else "missing"


def _fate_of_request(reader: _Reader, operation: Mapping[str, Any], called: str, name: str) -> Fate:
    if name in _UNUSED.get(called, ()):
        return "ignored"
    body = operation.get("requestBody", {})
    top = name.partition(".")[0].removesuffix("[]")
    parameters = {one["name"] for one in operation.get("parameters", ())}
    if top in parameters or reader.has(_body(body), name):
        return "supported"
    if body.get("description") == PASSED or (
        called in _FORWARDING and (top in forwarded({top: None}) or reader.has(_body(body), top))
    ):
        return "passed on"
    return "ignored"


def _body(described: Mapping[str, Any]) -> Any:
    contents = described.get("content", {})
    return next((contents[kind]["schema"] for kind in contents if kind != "text/event-stream"), {})


class _Reader:
    """Finds properties in schemas, through references and unions."""

    def __init__(self, schemas: Mapping[str, Any]) -> None:
        self._schemas = schemas

    def has(self, schema: Any, name: str) -> bool:
        """Whether the schema has the property, or an object without properties around it."""
        return any(True for _ in self._found([schema], _PART.findall(name)))

    def kinds(self, schema: Any, name: str) -> set[str]:
        """Which kinds of JSON the property may be."""
        found: set[str] = set()
        for one in self._found([schema], _PART.findall(name)):
            for member in self._members(one):
                given = member.get("type", "any")
                found |= {given} if isinstance(given, str) else set(given)
        return found

    def _found(self, schemas: list[Any], parts: list[tuple[str, str]]) -> Iterator[Any]:
        members = [member for schema in schemas for member in self._members(schema)]
        if not parts:
            yield from members
            return
        (name, of_list), *rest = parts
        for member in members:
            inner = member.get("properties", {}).get(name)
            if inner is None:
                extra = member.get("additionalProperties")
                if extra and "properties" not in member:
                    yield from self._found([extra], rest)
                elif member.get("type") == "object" and "properties" not in member:
                    yield {}
                continue
            if of_list:
                inner = [one.get("items", {}) for one in self._members(inner)]
            yield from self._found(inner if isinstance(inner, list) else [inner], rest)

    def _members(self, schema: Any) -> Iterator[Any]:
        if (reference := schema.get("$ref")) is not None:
            yield from self._members(self._schemas[reference.rpartition("/")[2]])
            return
        union = schema.get("anyOf") or schema.get("oneOf")
        if union and "properties" not in schema:
            for one in union:
                yield from self._members(one)
        else:
            yield schema


def _fits(ours: set[str], theirs: set[str]) -> bool:
    """Whether a client that expects theirs can read ours; a whole number is a number too."""
    wide = theirs | ({"integer"} if "number" in theirs else set())
    return "any" in theirs | ours or ours <= wide | {"null"}


def _is_inside(name: str, other: str) -> bool:
    return name.startswith((f"{other}.", f"{other}[]"))


def _anonymous(path: str) -> str:
    return "/".join("{}" if part.startswith("{") else part for part in path.split("/"))
