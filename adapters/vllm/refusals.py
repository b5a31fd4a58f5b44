"""What a model server's refusal means, as one OpenAI-shaped error.

vLLM has five shapes of error (observed on 0.32):

1. its own: ``{"error": {"message", "type", "param", "code": 404}}``, the code a number;
2. validation: the same envelope, ``type: "Bad Request"``, ``param: "body.temperature"`` and a dump
   of several lines for a message;
3. authentication: ``{"error": "Unauthorized"}``;
4. unknown route: ``{"detail": "Not Found"}``;
5. in a stream: status 200, then shape 1 as an event, then ``[DONE]``.

And whatever stands in front of it (a router, a mesh, an OAuth proxy) has its own: redirects to a
login page, HTML, nothing at all.
"""

from __future__ import annotations

import ast
import re
from typing import Any

import msgspec

from gateway.errors import (
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    NotFound,
    UpstreamError,
    error_for_status,
)

NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding a server's answer raises."""

_LONGEST_WAIT_SECONDS = 3600
"""That a caller is told to wait, whatever a server says."""
_LONGEST_MESSAGE = 4096
_LONGEST_CODE = 128
_CONTEXT_LENGTH = re.compile(r"maximum context length|longer than the maximum model length")
_INPUT = {
    "/v1/chat/completions": "messages",
    "/v1/completions": "prompt",
    "/v1/embeddings": "input",
    "/v1/rerank": "documents",
    "/v1/messages": "messages",
    "/tokenize": "prompt",
}
"""What the caller calls its input, where vLLM speaks of ``input_tokens``."""
_ABOUT = (
    ("dimensions", "dimensions"),
    ("multimodal", None),
    ("chat template", None),
    ("one prompt", None),
)
"""Words in a message that has no ``param``, and what it is about (``None``: the input)."""
_NAMED = re.compile(r"\(parameter=(\w+)|^([a-z_]+) must be ")
_CONTEXT = re.compile(r", 'ctx': .*", re.DOTALL)


def refusal(
    status: int,
    content_type: str,
    body: bytes,
    *,
    path: str = "",
    retry_after: bytes | None = None,
    credentials_forwarded: bool = False,
) -> GatewayError:
    """The error for an answer that isn't 2xx.

    ``path`` is the endpoint that was asked. ``credentials_forwarded`` says whose credentials a 401
    or 403 is about: the caller's, or the gateway's own, which is nothing that the caller could
    mend.
    """
    if 300 <= status < 400:
        return UpstreamError(
            "The model server redirected the request, most likely to a login page. "
            "Give the gateway credentials for it (api_key or api_key_file).",
            code="upstream_redirected",
        )
    if status in (401, 403) and not credentials_forwarded:
        return UpstreamError(
            f"The model server refused the gateway's credentials ({status}).",
            code="upstream_refused_credentials",
        )
    said = _decode(body)
    if said is None:
        error = _without_words(status, content_type)
    else:
        error = _from_words(status, said, path)
    return _with_retry_after(error, retry_after)


def event_error(data: bytes) -> GatewayError | None:
    """The error in a stream's event, or ``None`` where the event is none."""
    said = _decode(data)
    if not isinstance(said, dict) or not said.get("error"):
        return None
    error = said["error"]
    code = error.get("code") if isinstance(error, dict) else None
    status = code if isinstance(code, int) and 400 <= code < 600 else 500
    return _from_words(status, said)


def _decode(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except NOT_JSON:
        return None


def _without_words(status: int, content_type: str) -> GatewayError:
    what = "an HTML page" if content_type == "text/html" else "no explanation"
    message = f"The model server answered {status} with {what}."
    if status >= 500:
        return error_for_status(status)(message, code="upstream_error" if status == 500 else None)
    if content_type == "text/html" and status != 429:
        return UpstreamError(message)
    return error_for_status(status)(message)


def _from_words(status: int, said: Any, path: str = "") -> GatewayError:
    error = said.get("error", said.get("detail")) if isinstance(said, dict) else said
    if isinstance(error, dict):
        message = error.get("message") or error.get("detail") or str(error)
        param = error.get("param")
        code = error.get("code")
    else:
        message, param, code = error, None, None
    text = str(message if message is not None else said)[:_LONGEST_MESSAGE]
    text = text or f"The model server answered {status} with no explanation."
    param = param if isinstance(param, str) else None
    code = code[:_LONGEST_CODE] if isinstance(code, str) and not code.isdigit() else None
    if status == 404 and param is None and error == "Not Found":
        # Not the caller's wrong path, for the gateway has it, but a model without this ability.
        return NotFound(
            "The server of this model has no such endpoint: the model can't do this.",
            code="model_not_supported",
        )
    if status in (400, 422):
        refused: GatewayError = _invalid(text, param, code, path)
    elif status == 404 and (code or param == "model" or "does not exist" in text):
        refused = ModelNotFound(text, param="model")
    else:
        refused = error_for_status(status)(text, param=param, code=code)
    if code is not None and refused.code == code:
        # Its code is for the caller; in a metric's label it could have any number of values.
        refused.error_type = refused.default_code or type(refused).__name__
    return refused


def _invalid(message: str, param: str | None, code: str | None, path: str) -> InvalidRequest:
    message, found = _readable(message)
    if found is None and (named := _NAMED.search(message)) is not None:
        found = named[1] or named[2]
    param = _strip_body(param) or found
    if path == "/v1/messages" and param == "max_completion_tokens":
        param = "max_tokens"  # vLLM names it as its own chat API does
    if _CONTEXT_LENGTH.search(message):
        # The code that OpenAI gives, which agent frameworks look for.
        return InvalidRequest(message, param=_INPUT.get(path), code="context_length_exceeded")
    if param is None:
        param = next((name or _INPUT.get(path) for words, name in _ABOUT if words in message), None)
    return InvalidRequest(message, param=param, code=code)


def _readable(message: str) -> tuple[str, str | None]:
    """VLLM's dump of a validation error as a sentence, and the parameter it is about."""
    heading, _, report = message.partition("\n")
    if "validation error" not in heading or not report:
        return message, None
    first = report.strip().splitlines()[0]
    try:
        # Its context may hold what is no literal, and says nothing more.
        found = ast.literal_eval(_CONTEXT.sub("}", first))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return first, None
    if not isinstance(found, dict):
        return first, None
    param = _strip_body(str(found.get("loc", ""))) or None
    text = str(found.get("msg", first)).removeprefix("Value error, ")
    return (f"Invalid value for '{param}': {text}." if param else f"{text}."), param


def _strip_body(param: str | None) -> str | None:
    if param is None:
        return None
    stripped = param.removeprefix("body.").removeprefix("body")
    return None if stripped.isdigit() else stripped or None


def _with_retry_after(error: GatewayError, retry_after: bytes | None) -> GatewayError:
    if retry_after is not None and retry_after.isdigit() and error.status in (429, 503):
        digits = retry_after.lstrip(b"0") or b"0"
        longest = _LONGEST_WAIT_SECONDS
        error.retry_after = min(int(digits), longest) if len(digits) < 10 else longest
    return error
