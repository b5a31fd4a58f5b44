"""What operations answer with: the statuses, the one shape of errors, and the headers."""

from __future__ import annotations

from typing import Any

from litestar.handlers import HTTPRouteHandler

from gateway.http.intake import TAKES_FORM
from gateway.http.relayed import ANSWERS_WITH, RELAY
from gateway.http.requests import TAKES
from gateway.identity.scopes import PUBLIC

__all__ = ["COMPONENTS", "describe_answers"]

_ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_HEADERS: dict[str, dict[str, Any]] = {
    "x-request-id": {
        "description": "Names the request in logs and traces.",
        "required": True,
        "schema": {"type": "string", "pattern": "^req_[0-9a-f]{32}$"},
    },
    "openai-processing-ms": {
        "description": "Milliseconds until the answer began.",
        "required": True,
        "schema": {"type": "integer", "minimum": 0},
    },
    "openai-version": {"required": True, "schema": {"type": "string"}},
    "x-content-type-options": {
        "description": "A browser takes the answer for nothing but what it is said to be.",
        "required": True,
        "schema": {"type": "string", "enum": ["nosniff"]},
    },
    "www-authenticate": {
        "description": "How to say who asks.",
        "required": True,
        "schema": {"type": "string"},
    },
    "retry-after": {
        "description": "Seconds after which it may work.",
        "required": True,
        "schema": {"type": "integer", "minimum": 0},
    },
}
_EVERY_ANSWER = ("x-request-id", "openai-processing-ms", "openai-version", "x-content-type-options")
COMPONENTS: dict[str, dict[str, Any]] = {
    "schemas": {"Error": _ERROR_SCHEMA},
    "headers": _HEADERS,
    "securitySchemes": {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "An API key or a token, where `identity.mode` asks for one.",
        }
    },
}
"""Added to the document's components, by their kind."""

_MEANINGS = {
    400: "The request is wrong; `param` names the parameter.",
    401: "Who asks is not known.",
    403: "Who asks may not do that.",
    404: "No such model or object.",
    408: "The body stopped coming.",
    409: "The object's state does not allow it.",
    413: "The body is too large.",
    415: "The body is of another type.",
    416: "The range lies outside of the content.",
    424: "A server of tools that the request names failed.",
    429: "No more requests are taken now.",
    500: "The gateway or the model server failed.",
    502: "The answer of a server behind the gateway can't be used.",
    503: "A server behind the gateway, or the gateway itself, is not available.",
    504: "A server behind the gateway took too long.",
}
_ANYTIME = (401, 403, 429, 500, 503)
"""Of every operation of the API: identity, limits, faults, and a gateway that ends."""
_OF_BODIES = (400, 413, 415)
_OF_FORMS = (*_OF_BODIES, 404, 408)
_OF_RELAYS = (*_OF_BODIES, 404, 502, 504)
_UPSTREAM = (502, 504)
_OF_OPERATIONS: dict[str, tuple[int, ...]] = {
    "downloadFile": (416, *_UPSTREAM),
    "measureFile": (416, *_UPSTREAM),
    "createResponse": (409, 424, *_UPSTREAM),
    "Getinputtokencounts": (424, *_UPSTREAM),
    "Compactconversation": _UPSTREAM,
    "createModeration": _UPSTREAM,
    "runShield": _UPSTREAM,
    "cancelResponse": (409,),
    "cancelBatch": (409,),
    "createBatch": (409,),
    "registerShield": (409,),
    "unregisterShield": (409,),
    "createVectorStore": (409, *_UPSTREAM),
    "createFile": _UPSTREAM,
    "addUploadPart": _UPSTREAM,
    "completeUpload": _UPSTREAM,
    "deleteFile": _UPSTREAM,
    "deleteVectorStore": _UPSTREAM,
    "deleteVectorStoreFile": _UPSTREAM,
    "retrieveVectorStoreFileContent": _UPSTREAM,
    "searchVectorStore": _UPSTREAM,
    "processFile": _UPSTREAM,
}
_BYTES = {"*/*": {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}}
_NULL = {"application/json": {"schema": {"type": "null"}}}
_CONTENT: dict[str, dict[str, Any]] = {
    "downloadFile": _BYTES,
    "measureFile": _BYTES,
    "metrics": {"text/plain": {"schema": {"type": "string"}}},
    "deletePrompt": {},
    "registerToolGroup": _NULL,
    "unregisterToolGroup": _NULL,
    "insertRag": _NULL,
    "insertChunks": _NULL,
}
"""What is answered, where the handler's annotation does not say it."""
_EVENT = {
    "description": "One event of the stream.",
    "type": "object",
    "required": ["data"],
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
}
_STREAM = {"text/event-stream": {"schema": _EVENT}}
_TEXT = {"schema": {"type": "string"}}
_ALSO: dict[str, dict[str, Any]] = {
    "createResponse": _STREAM,
    "getResponse": _STREAM,
    "getUsage": {"text/csv": _TEXT},
    "listAuditEntries": {"text/csv": _TEXT, "application/jsonl": _TEXT},
}
"""What is answered where the caller asks for another form than JSON."""
_OUTSIDE_TAGS = frozenset({"Tools", "Connectors", "Tool runtime", "Vector IO"})
_MANAGEMENT = {"livez": (), "readyz": (503,), "metrics": ()}


def describe_answers(operation: dict[str, Any], handler: HTTPRouteHandler, path: str) -> None:
    """Add the statuses of refusals, what a relay answers with, and the headers of all."""
    responses = operation["responses"]
    operation["security"] = [] if path in PUBLIC else [{"bearer": []}, {}]
    if handler.opt.get(RELAY) is not None:
        responses["200"] = _relayed_answer(handler)
    name = str(handler.name)
    if (content := _CONTENT.get(name)) is not None:
        responses["200"]["content"] = content
    if name in _ALSO:
        responses["200"].setdefault("content", {}).update(_ALSO[name])
    if content is _BYTES:
        responses["206"] = {"description": "The range that was asked for.", "content": content}
        responses["304"] = {"description": "The caller has it already."}
    responses.pop("400", None)  # Litestar's own, in its own shape
    for status in sorted(_statuses(operation, handler, path)):
        responses[str(status)] = _refusal(status)
    for response in responses.values():
        headers = {name: _header(name) for name in _EVERY_ANSWER}
        response["headers"] = {**headers, **response.get("headers", {})}


def _statuses(operation: dict[str, Any], handler: HTTPRouteHandler, path: str) -> set[int]:
    name = str(handler.name)
    if name in _MANAGEMENT:
        return set(_MANAGEMENT[name])
    anytime = set(_ANYTIME) - {401, 403} if path in PUBLIC else _ANYTIME
    found = {*anytime, *_OF_OPERATIONS.get(name, ())}
    places = {parameter["in"] for parameter in operation.get("parameters", ())}
    if places:
        found.add(400)
    if "{" in path or "query" in places:
        found.add(404)
    if TAKES in handler.opt:
        found |= {*_OF_BODIES, 404}
    if TAKES_FORM in handler.opt:
        found |= {*_OF_FORMS}
    if RELAY in handler.opt:
        found |= {*_OF_RELAYS}
    if _OUTSIDE_TAGS & {*operation.get("tags", ())}:
        found |= {*_UPSTREAM}
    return found


def _refusal(status: int) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Error"}
    refusal: dict[str, Any] = {
        "description": _MEANINGS[status],
        "content": {"application/json": {"schema": schema}},
    }
    if status == 401:
        refusal["headers"] = {"www-authenticate": _header("www-authenticate")}
    if status in (429, 503):
        refusal["headers"] = {"retry-after": _header("retry-after")}
    return refusal


def _relayed_answer(handler: HTTPRouteHandler) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    if "stream" in handler.opt[RELAY].operation.request.__struct_fields__:
        content |= _STREAM
    return {"description": f"A {handler.opt[ANSWERS_WITH]}.", "content": content}


def _header(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/headers/{name}"}
