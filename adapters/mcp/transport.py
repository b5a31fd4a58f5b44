"""HTTP to one MCP server, as the protocol's SDK needs it: nothing that fails breaks the session.

The SDK ends a whole session when one request can't be sent, says nothing of a refusal's status, and
waits for ever where a message of the older transport is refused. Here what goes wrong with a
request becomes the JSON-RPC error of that one request, with the reason in its ``data``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import httpx2
import msgspec
from msgspec import Struct, field

__all__ = ["Failure", "McpTransport", "failure_in"]

MAX_REFUSAL_BYTES = 65_536
_FAILED = -32_000
_METHOD_NOT_FOUND = -32_601
_KEY = "understudy"
_CARRIED = ("traceparent", "tracestate", "baggage")
_REDIRECTS = (301, 302, 303, 307, 308)


class Failure(Struct, frozen=True, kw_only=True):
    """Why a request came to nothing. ``foreign`` where the answer wasn't of the protocol at all,
    as that of a server which doesn't know this transport.
    """

    message: str
    status: int | None = None
    foreign: bool = False


class _Meta(Struct, frozen=True):
    traceparent: str | None = None
    tracestate: str | None = None
    baggage: str | None = None


class _Params(Struct, frozen=True):
    meta: _Meta | None = field(default=None, name="_meta")


class _Message(Struct, frozen=True):
    """A JSON-RPC message as far as it matters here; an answer has no method."""

    id: int | str | None = None
    method: str | None = None
    params: _Params | None = None


class _RpcError(Struct, frozen=True):
    code: int
    message: str
    data: Any = None


class _Refusal(Struct, frozen=True):
    error: _RpcError
    id: int | str | None = None


_messages = msgspec.json.Decoder(_Message)
_refusals = msgspec.json.Decoder(_Refusal)


class McpTransport(httpx2.AsyncBaseTransport):
    """``headers`` go with requests to the origin of ``url``; other requests go nowhere.

    ``broken`` is told what refuses a message whose answer would come another way.
    """

    def __init__(
        self,
        inner: httpx2.AsyncBaseTransport,
        url: str,
        headers: Mapping[str, str],
        broken: Callable[[Failure], None],
    ) -> None:
        self._inner = inner
        self._origin = _origin(httpx2.URL(url))
        self._headers = headers
        self._broken = broken
        self.last_failure: Failure | None = None
        self.session_id: str | None = None
        self.answers_elsewhere = False
        """The older transport: answers come in the event stream, not to the POST."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        message = _message_of(request)
        if _origin(request.url) != self._origin:
            failure = Failure(message="it sent the gateway to another place")
            return self._failed(request, message, failure)
        request.headers.update(self._headers)
        if message is not None and message.params is not None and message.params.meta is not None:
            meta = message.params.meta
            carried = {name: getattr(meta, name) for name in _CARRIED}
            request.headers.update({name: value for name, value in carried.items() if value})
        try:
            response = await self._inner.handle_async_request(request)
        except httpx2.TransportError as error:
            return self._failed(request, message, Failure(message=_uncapitalised(str(error))))
        self.session_id = response.headers.get("mcp-session-id", self.session_id)
        if response.status_code < 300 or self._is_followed(request, response):
            return response
        return await self._refused(request, message, response)

    async def aclose(self) -> None:
        await self._inner.aclose()

    def _is_followed(self, request: httpx2.Request, response: httpx2.Response) -> bool:
        """A redirect on the same origin, as to the path with a slash, is the SDK's to follow."""
        location = response.headers.get("location")
        if response.status_code not in _REDIRECTS or location is None:
            return False
        if request.method == "POST" and response.status_code not in (307, 308):
            return False
        try:
            return _origin(request.url.join(location)) == self._origin
        except (httpx2.InvalidURL, ValueError):
            return False

    async def _refused(
        self, request: httpx2.Request, message: _Message | None, response: httpx2.Response
    ) -> httpx2.Response:
        status = response.status_code
        said = await _refusal_of(response)
        if status in _REDIRECTS:
            what = "it redirects elsewhere, which is not followed"
        elif said is not None:
            what = said.message
        else:
            what = f"it answered with HTTP status {status}"
        failure = Failure(message=what[:500], status=status, foreign=said is None)
        return self._failed(request, message, failure, said)

    def _failed(
        self,
        request: httpx2.Request,
        message: _Message | None,
        failure: Failure,
        said: _RpcError | None = None,
    ) -> httpx2.Response:
        self.last_failure = failure
        if message is None or message.method is None or message.id is None:
            if self.answers_elsewhere and request.method == "POST":
                self._broken(failure)
            if request.method == "GET" and failure.status is None:
                raise httpx2.TransportError(failure.message)
            status = failure.status if failure.status in range(400, 600) else 502
            return httpx2.Response(status or 502, request=request)
        if self.answers_elsewhere:
            self._broken(failure)
        code = said.code if said is not None else _FAILED
        if said is None and failure.status in (404, 405):
            code = _METHOD_NOT_FOUND
        data = dict(said.data) if said is not None and isinstance(said.data, dict) else {}
        data[_KEY] = msgspec.to_builtins(failure)
        error = {"code": code, "message": failure.message, "data": data}
        return httpx2.Response(
            502 if failure.status is None else max(failure.status, 400),
            headers={"content-type": "application/json"},
            content=msgspec.json.encode({"jsonrpc": "2.0", "id": message.id, "error": error}),
            request=request,
        )


def failure_in(data: Any) -> Failure | None:
    """What :class:`McpTransport` put into an error's ``data``."""
    if not isinstance(data, dict) or _KEY not in data:
        return None
    try:
        return msgspec.convert(data[_KEY], Failure)
    except msgspec.ValidationError:  # the server's own key of this name
        return None


def _message_of(request: httpx2.Request) -> _Message | None:
    if request.method != "POST":
        return None
    try:
        return _messages.decode(request.content)
    except (msgspec.DecodeError, httpx2.RequestNotRead):
        return None


async def _refusal_of(response: httpx2.Response) -> _RpcError | None:
    """The JSON-RPC error of a refusal, where it is one."""
    blocks: list[bytes] = []
    try:
        if not response.headers.get("content-type", "").lower().startswith("application/json"):
            return None
        async for block in response.aiter_raw():
            blocks.append(block)
            if sum(map(len, blocks)) > MAX_REFUSAL_BYTES:
                return None
        return _refusals.decode(b"".join(blocks)).error
    except (msgspec.DecodeError, UnicodeDecodeError, httpx2.StreamError):
        return None
    finally:
        await response.aclose()


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _uncapitalised(text: str) -> str:
    """As a part of a sentence."""
    return (text[:1].lower() + text[1:].rstrip(".")) if not text.startswith("TLS") else text
