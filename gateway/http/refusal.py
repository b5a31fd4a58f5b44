"""Sending an error as the whole answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.errors import GatewayError

if TYPE_CHECKING:
    from gateway.http.asgi import Send


async def refuse(error: GatewayError, send: Send, body: bytes | None = None) -> None:
    """Answer with this error; ``body`` where it is not in OpenAI's shape."""
    body = error.body() if body is None else body
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        *error.headers(),
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
