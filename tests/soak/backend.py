"""A fake vLLM in a process of its own, made to be killed: ``python -m tests.soak.backend``.

Its chat model repeats what it was told last, so that an answer shows whose it is.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import deque
from typing import Any

from tests.support.upstream import FakeVllm, faults

BETWEEN_EVENTS = 0.02


def repeat(body: dict[str, Any]) -> str:
    content = body["messages"][-1]["content"]
    if isinstance(content, list):
        content = " ".join(part["text"] for part in content if "text" in part)
    return f"You said: {content}"


async def serve(kind: Any, port: int) -> None:
    server = FakeVllm(kind=kind, port=port, reply=repeat)
    server.requests = deque(maxlen=10)  # type: ignore[assignment]  # it would keep all
    if kind == "chat":
        server.behave("/v1/chat/completions", faults.slow(between_events=BETWEEN_EVENTS))
    async with server:
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["chat", "embedding"])
    parser.add_argument("port", type=int)
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.kind, arguments.port))
