"""What limits and usage cost a relayed request: ``python -m tests.benchmarks.limits``.

The relay runs against a model server that answers from memory, without sockets, so that what is
left is the gateway's own work. Three gateways take turns in short rounds; what counts is the
processor time of each, and the ratio of the medians in one run, which holds on a busy machine.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from contextlib import AsyncExitStack
from typing import Any

import msgspec

from gateway.app import Application, create_app
from gateway.routing.catalog import Backend, Model
from gateway.settings import Settings

BODY = msgspec.json.encode(
    {"model": "granite", "messages": [{"role": "user", "content": "What is it? " * 20}]}
)
ANSWER = msgspec.json.encode(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "granite",
        "choices": [{"index": 0, "message": {"content": "It is."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 60, "completion_tokens": 4, "total_tokens": 64},
    }
)
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]

NO_LIMITS: dict[str, Any] = {}
LIMITS: dict[str, Any] = {
    "requests_per_minute": 100_000_000,
    "tokens_per_minute": 10_000_000_000,
    "concurrent_requests": 100_000,
    "rules": [{"model": "granite", "requests_per_minute": 100_000_000}],
}
GATEWAYS = {
    "neither": (NO_LIMITS, False),
    "usage": (NO_LIMITS, True),
    "usage and limits": (LIMITS, True),
}


class Answered:
    """A plain answer that is there already."""

    status = 200
    content_type = "application/json"

    async def read(self) -> list[bytes]:
        return [ANSWER]

    def close(self) -> None:
        pass


class Server:
    name = "http://memory"
    host = "memory"
    port = 80
    provider = "vllm"
    busy_connections = 0

    async def send(self, *_: Any) -> Answered:
        return Answered()

    def forwards(self, _: bytes) -> bool:
        return False

    def conform(self, body: bytes) -> bytes:
        return body


async def requests(app: Any, number: int) -> float:
    """Microseconds of processor time that one of so many requests took."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": BODY, "more_body": False}

    statuses = set()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.add(message["status"])

    began = time.process_time()
    for _ in range(number):
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/chat/completions",
            "scheme": "http",
            "headers": HEADERS,
            "state": {},
            "client": ("127.0.0.1", 1),
        }
        await app(scope, receive, send)
    took = time.process_time() - began
    assert statuses == {200}, statuses
    return took / number * 1e6


async def measure(rounds: int, number: int) -> None:
    async with AsyncExitStack() as stack:
        applications: dict[str, Application] = {}
        for name, (limits, metered) in GATEWAYS.items():
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            settings = msgspec.convert({"data_dir": folder, "limits": limits}, Settings)
            application = applications[name] = create_app(settings)
            application.catalog.replace(
                [Model(id="granite", backends=[Backend(server=Server(), model="granite")])]  # type: ignore[arg-type]
            )
            if not metered:
                application.telemetry.meter = None
            await application.state.prepare()
            await stack.enter_async_context(application.metering.running())
            await requests(application.public, number)
        figures: dict[str, list[float]] = {name: [] for name in GATEWAYS}
        for _ in range(rounds):
            for name, application in applications.items():
                figures[name].append(await requests(application.public, number))
                await asyncio.sleep(0)
        for application in applications.values():
            stack.push_async_callback(application.state.database.aclose)
    medians = {name: statistics.median(found) for name, found in figures.items()}
    base = medians["neither"]
    print("| gateway | processor time of a request | ratio |\n| --- | --- | --- |")
    for name, median in medians.items():
        print(f"| {name} | {median:.1f} µs | {median / base:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.limits", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--requests", type=int, default=2000)
    given = parser.parse_args()
    asyncio.run(measure(given.rounds, given.requests))


if __name__ == "__main__":
    main()
