"""Reading a request's body: bounded, and only where it is what it should be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.errors import ClientDisconnected, PayloadTooLarge, UnsupportedMediaType

if TYPE_CHECKING:
    from gateway.http.asgi import Receive, Scope


async def read_json_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The whole body, undecoded.

    Raises ``PayloadTooLarge`` past ``limit`` bytes (before reading where the length is declared),
    ``UnsupportedMediaType`` where the headers say that it isn't plain JSON, and
    ``ClientDisconnected``.
    """
    for name, value in scope["headers"]:
        if name == b"content-type":
            _check_content_type(value)
        elif name == b"content-length":
            if value.isdigit() and int(value) > limit:
                raise _too_large(limit)
        elif name == b"content-encoding" and value.lower() != b"identity":
            raise UnsupportedMediaType(
                "Compressed request bodies are not supported. Send the JSON without a "
                "content-encoding header.",
                param="content-encoding",
            )
        elif name == b"transfer-encoding" and value.lower() != b"chunked":
            raise UnsupportedMediaType(
                "A transfer-encoding other than 'chunked' is not supported.",
                param="transfer-encoding",
            )
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnected("The client left while sending its request.")
    body: bytes = message["body"]
    if not message["more_body"]:
        if len(body) > limit:
            raise _too_large(limit)
        return body
    return await _read_on(body, receive, limit)


async def _read_on(first: bytes, receive: Receive, limit: int) -> bytes:
    blocks = [first]
    size = len(first)
    while True:
        if size > limit:
            raise _too_large(limit)
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected("The client left while sending its request.")
        blocks.append(message["body"])
        size += len(message["body"])
        if not message["more_body"]:
            break
    if size > limit:
        raise _too_large(limit)
    return b"".join(blocks)


def _check_content_type(value: bytes) -> None:
    if value == b"application/json":
        return
    essence = value.partition(b";")[0].strip().lower()
    if essence != b"application/json" and not essence.endswith(b"+json"):
        shown = essence.decode("latin-1")[:100]
        raise UnsupportedMediaType(
            f"Unsupported content type {shown!r}. Send 'application/json'.", param="content-type"
        )


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The request body is larger than {limit} bytes.")
