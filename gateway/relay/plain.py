"""An answer that isn't a stream on its way to the caller: whole before its status is sent."""

from __future__ import annotations

from gateway.errors import UpstreamError
from gateway.relay.answer import LARGE_BYTES, read_answer, read_large_answer
from gateway.relay.json_object import rename_model
from gateway.relay.passage import Passage

JSON = "application/json"
BINARY = "application/octet-stream"
"""Embeddings as bytes, which vLLM describes in the header ``metadata``."""


async def pass_answer(passage: Passage) -> None:
    """Pass it on. Raises ``UpstreamError`` where it is not what it should be."""
    answer, send = passage.answer, passage.send
    headers = [(b"content-type", answer.content_type.encode("latin-1"))]
    if answer.content_type == JSON:
        blocks = _shaped(passage, await answer.read())
    elif answer.content_type == BINARY:
        if (metadata := answer.header(b"metadata")) is not None:
            headers.append((b"metadata", metadata))
        blocks = await answer.read()
    else:
        raise UpstreamError(
            f"The model server answered with {answer.content_type or 'an unnamed type'} where JSON "
            "was due; a page in HTML is most likely a login page.",
            code="upstream_not_json",
        )
    passage.call.end()
    if passage.record is not None:
        await passage.record.finish()
    headers.append((b"content-length", b"%d" % sum(map(len, blocks))))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for block in blocks[:-1]:
        await send({"type": "http.response.body", "body": block, "more_body": True})
    last = blocks[-1] if blocks else b""
    await send({"type": "http.response.body", "body": last, "more_body": False})


def _shaped(passage: Passage, blocks: list[bytes]) -> list[bytes]:
    """The JSON as the caller shall have it; a large answer stays in the blocks it came in."""
    operation = passage.operation
    if (
        operation.large_answers
        and passage.rename is None
        and sum(map(len, blocks)) > LARGE_BYTES
        and read_large_answer(passage.call, blocks)
    ):
        return blocks
    body = blocks[0] if len(blocks) == 1 else b"".join(blocks)
    read_answer(passage.call, body)
    if passage.rename is not None:
        body = rename_model(body, ("model",), passage.rename)
    if operation.conforms:
        body = passage.server.conform(body)
    if operation.from_upstream is not None:
        body = operation.from_upstream(body)
    if passage.tee is not None:
        passage.tee.answer(body)
    if passage.record is not None:
        passage.record.answer(body)
    return [body]
