"""Batches for tests: input files, and waiting for the end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

from openai import AsyncOpenAI
from openai.types import Batch

__all__ = ["CHAT", "OVER", "chat_line", "finished", "jsonl", "line", "made", "results"]

CHAT = "/v1/chat/completions"
OVER = {"failed", "completed", "expired", "cancelled"}


def line(custom_id: str, url: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def chat_line(custom_id: str, model: str = "fake-chat", **body: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": custom_id}]
    return line(custom_id, CHAT, {"model": model, "messages": messages, **body})


def jsonl(lines: Iterable[Any]) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in lines)


async def made(
    client: AsyncOpenAI, lines: Iterable[Any] | bytes, endpoint: str = CHAT, **options: Any
) -> Batch:
    """A batch of these lines."""
    content = lines if isinstance(lines, bytes) else jsonl(lines)
    file = await client.files.create(file=("in.jsonl", content), purpose="batch")
    return await client.batches.create(
        input_file_id=file.id, endpoint=endpoint, completion_window="24h", **options
    )


async def finished(client: AsyncOpenAI, batch: Batch, within: float = 30.0) -> Batch:
    """The batch once it is over."""
    async with asyncio.timeout(within):
        while batch.status not in OVER:
            await asyncio.sleep(0.02)
            batch = await client.batches.retrieve(batch.id)
    return batch


async def results(client: AsyncOpenAI, file_id: str | None) -> list[dict[str, Any]]:
    """The lines of an output or error file; none where there is no file."""
    if file_id is None:
        return []
    content = (await client.files.content(file_id)).content
    assert content.endswith(b"\n")
    return [json.loads(one) for one in content.splitlines()]
