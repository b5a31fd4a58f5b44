"""The properties of OpenAI's requests and answers, with their kinds, from the types of its SDK;
writes ``openapi/openai-properties.json``.

Run ``python -m tests.support.openai_properties`` after an update of the SDK, or when routes of
OpenAI's are added. Only operations that the document has are listed.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import openai.resources
from openai._resource import SyncAPIResource
from openai.pagination import SyncCursorPage, SyncPage
from pydantic import BaseModel

from tests.support.published import published

FILE = Path(__file__).parents[2] / "openapi" / "openai-properties.json"
DEPTH = 3

_CALL = re.compile(
    r"self\._(?P<verb>get_api_list|get|post|put|patch|delete)\(\s*"
    r"(?:path_template\(\s*)?f?\"(?P<path>/[^\"]*)\""
)
_METHOD = re.compile(r'method="(?P<method>\w+)"')
_KINDS = {str: "string", bytes: "string", int: "integer", float: "number", bool: "boolean"}
_NOT_SENT = {"extra_headers", "extra_query", "extra_body", "timeout", "self"}
_LISTS = (
    list,
    tuple,
    typing.get_origin(typing.Iterable[int]),
    typing.get_origin(typing.Sequence[int]),
)

Properties = dict[str, str]


def openai_properties() -> dict[str, Any]:
    """For each operation the names of its properties (``a.b`` inside of ``a``, ``a[].b`` inside of
    what it lists) and what kinds of JSON they may be; with the version of the SDK."""
    served = {
        (method.upper(), _anonymous(path))
        for path, methods in published()["paths"].items()
        for method in methods
    }
    found: dict[str, Any] = {}
    for method in _methods():
        source = inspect.getsource(method)
        call = _CALL.search(source)
        if call is None:
            continue
        other = _METHOD.search(source) if call["verb"] == "get_api_list" else None
        verb = other["method"] if other else call["verb"].partition("_")[0]
        path = re.sub(r"\{([^}!]*)[^}]*\}", r"{\1}", call["path"]).partition("?")[0]
        if (verb.upper(), _anonymous(f"/v1{path}")) in served:
            name = f"{verb.upper()} {path}"
            request, answer = _signature(method, path)
            known = found.setdefault(name, {"request": {}, "answer": {}})
            known["request"] |= request
            known["answer"] |= answer
    return {"sdk": openai.__version__, "operations": dict(sorted(found.items()))}


def _methods() -> Iterator[Any]:
    """The methods of the SDK's resources, without the beta ones, which are other paths' or none."""
    for module in pkgutil.walk_packages(openai.resources.__path__, "openai.resources."):
        if ".beta" in module.name or "webhooks" in module.name:
            continue
        for _, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(kind, SyncAPIResource) and kind.__module__ == module.name:
                for _, member in inspect.getmembers(kind, inspect.isfunction):
                    if not member.__name__.startswith("_"):
                        yield inspect.unwrap(member)


def _signature(method: Any, path: str) -> tuple[Properties, Properties]:
    hints = typing.get_type_hints(method, include_extras=False)
    answer = hints.pop("return", None)
    request: Properties = {}
    for name in inspect.signature(method).parameters:
        if name not in _NOT_SENT and f"{{{name}}}" not in path and name in hints:
            request |= dict(_named(name, hints[name], DEPTH - 1))
    return request, dict(_inside("", answer, DEPTH))


def _named(name: str, kind: Any, depth: int) -> Iterator[tuple[str, str]]:
    yield name, "|".join(sorted(_kinds(kind)))
    if depth > 0:
        yield from _inside(name, kind, depth)


def _inside(prefix: str, kind: Any, depth: int) -> Iterator[tuple[str, str]]:
    """The properties of an object; of a union only where a single member of it has any."""
    members = [one for one in _members(kind) if one is not types.NoneType]
    objects = [one for one in members if _fields(one)]
    lists = [one for one in members if typing.get_origin(one) in _LISTS]
    if len(objects) == 1:
        for name, inner in _fields(objects[0]).items():
            yield from _named(f"{prefix}.{name}" if prefix else name, inner, depth - 1)
    elif not objects and len(lists) == 1 and typing.get_args(lists[0]):
        yield from _inside(f"{prefix}[]", typing.get_args(lists[0])[0], depth)


def _fields(kind: Any) -> dict[str, Any]:
    origin = typing.get_origin(kind)
    if origin in (SyncCursorPage, SyncPage) or (
        inspect.isclass(origin) and issubclass(origin, BaseModel)
    ):
        [item] = typing.get_args(kind)
        extra = {"has_more": bool} if origin is not SyncPage else {}
        return {"data": list[item], **extra}  # type: ignore[valid-type]
    if inspect.isclass(kind) and issubclass(kind, BaseModel):
        return {field.alias or name: field.annotation for name, field in kind.model_fields.items()}
    if typing.is_typeddict(kind):
        return typing.get_type_hints(kind)
    return {}


def _members(kind: Any) -> list[Any]:
    """The types of a union; a stream in place of an answer is none."""
    if typing.get_origin(kind) in (typing.Annotated, typing.Required, typing.NotRequired):
        return _members(typing.get_args(kind)[0])
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return [one for member in typing.get_args(kind) for one in _members(member)]
    if getattr(typing.get_origin(kind), "__name__", "") in ("Stream", "AsyncStream"):
        return []
    return [kind]


def _kinds(kind: Any) -> set[str]:
    found: set[str] = set()
    for one in _members(kind):
        origin = typing.get_origin(one)
        if one is types.NoneType:
            found.add("null")
        elif origin is typing.Literal:
            found |= {_KINDS[type(value)] for value in typing.get_args(one)}
        elif origin in _LISTS:
            found.add("array")
        elif (
            origin is dict
            or one is dict
            or _fields(one)
            or origin is typing.get_origin(typing.Mapping[str, str])
        ):
            found.add("object")
        elif one in _KINDS:
            found.add(_KINDS[one])
        elif one is object or one is Any:
            found.add("any")
        elif getattr(one, "__name__", "") not in ("Omit", "NotGiven"):
            found.add("string" if getattr(one, "__name__", "") in ("IO", "PathLike") else "any")
    return found


def _anonymous(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", path)


if __name__ == "__main__":
    FILE.write_text(json.dumps(openai_properties(), indent=1) + "\n", encoding="utf-8")
