"""Taking in forms with files: so many at once, and a refusal that the caller gets to see.

A client that is still sending when the answer comes reads it only after it has sent all, and may
meet a reset instead where the connection is closed under it. So an early refusal goes out at once,
and the rest of the body is read for a while and thrown away before the connection is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from litestar import Request, Response

from gateway.errors import ClientDisconnected, GatewayError, RateLimited, RequestStalled
from gateway.http.answered_by import AnsweredBy
from gateway.http.multipart import FileLimit, FormReader

if TYPE_CHECKING:
    from gateway.http.asgi import Message, Receive, Scope, Send
    from gateway.observability.exchange import Exchange

__all__ = ["TAKES_FORM", "FormIntake"]

TAKES_FORM = "takes_form"
"""The key of a handler's ``opt`` with the JSON schema of its form, for the OpenAPI document."""


STALL_SECONDS = 60.0
"""How long a caller may send nothing. One whose machine has gone would else keep its place."""

MAX_DRAINED_BYTES = 1024 * 1024 * 1024
MAX_DRAINED_SECONDS = 30.0

T = TypeVar("T")


class FormIntake:
    """Where handlers of forms get their form from. One for each process.

    ``most`` forms are read at a time; past that callers get ``RateLimited``.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0

    async def take(
        self,
        request: Request[Any, Any, Any],
        limit: FileLimit,
        read: Callable[[FormReader], Awaitable[T]],
    ) -> Response[T]:
        """What ``read`` makes of the form, as the answer; or the error that it raises."""
        waits = request.headers.get("expect", "").lower() == "100-continue"
        body = _Body(cast("Receive", request.receive), waits=waits)
        try:
            return Response(await self._read(request, body, limit, read), status_code=200)
        except ClientDisconnected:
            raise
        except GatewayError as error:
            if body.over:
                raise
            return AnsweredBy(_EarlyRefusal(error, body))

    async def _read(
        self,
        request: Request[Any, Any, Any],
        body: _Body,
        limit: FileLimit,
        read: Callable[[FormReader], Awaitable[T]],
    ) -> T:
        if self._taken >= self._most:
            raise RateLimited(
                f"{self._most} uploads are in progress, and no more are taken at once "
                "(limits.max_concurrent_uploads). Try again.",
                code="too_many_uploads",
            )
        self._taken += 1
        try:
            return await read(FormReader(cast("Scope", request.scope), body.receive, limit))
        finally:
            self._taken -= 1


class _Body:
    """A request's body, and how far it has been read.

    ``waits`` is true where the caller sends nothing: not before it is asked to, which reading does.
    """

    def __init__(self, receive: Receive, *, waits: bool) -> None:
        self._receive = receive
        self._waits = waits
        self.over = False

    async def receive(self) -> Message:
        try:
            async with asyncio.timeout(STALL_SECONDS):
                message = await self._receive()
        except TimeoutError:
            self._waits = True  # there is nothing to drain
            raise RequestStalled(
                f"The request sent nothing for {STALL_SECONDS:g} seconds."
            ) from None
        self._waits = False
        self.over = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def drain(self) -> None:
        """Read on and keep nothing, within bounds of bytes and seconds."""
        if self._waits:
            return
        drained = 0
        try:
            async with asyncio.timeout(MAX_DRAINED_SECONDS):
                while not self.over and drained <= MAX_DRAINED_BYTES:
                    drained += len((await self.receive()).get("body", b""))
        except (TimeoutError, RequestStalled):
            return


class _EarlyRefusal:
    """An error while the caller is still sending. Closes the connection when it is out."""

    def __init__(self, error: GatewayError, body: _Body) -> None:
        self._error = error
        self._body = body

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        exchange: Exchange | None = scope.get("state", {}).get("exchange")
        if exchange is not None:
            exchange.fail(self._error)
        content = self._error.body()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(content)),
            (b"connection", b"close"),
            *self._error.headers(),
        ]
        await send(
            {"type": "http.response.start", "status": self._error.status, "headers": headers}
        )
        await send({"type": "http.response.body", "body": content, "more_body": True})
        await self._body.drain()
        await send({"type": "http.response.body", "body": b"", "more_body": False})
