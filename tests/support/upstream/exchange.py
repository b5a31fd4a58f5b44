"""One request being answered: the pieces from which honest answers and faults are built."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from email.utils import formatdate
from http import HTTPStatus

from tests.support.upstream.answers import EVENT_STREAM, Answer, Whole
from tests.support.upstream.wire import Connection, Received


class Exchange:
    """A request, the answer that an honest vLLM would give, and the socket to misuse."""

    def __init__(
        self, connection: Connection, request: Received, answer: Answer, echo: str | None = None
    ) -> None:
        self.connection = connection
        self.request = request
        self.answer = answer
        self._echo = echo

    @property
    def wants_stream(self) -> bool:
        """Whether the request asks for an event stream."""
        body = self.request.json
        return isinstance(body, dict) and bool(body.get("stream"))

    async def honestly(self) -> None:
        """Answer as vLLM does."""
        await self.send(self.answer)

    async def send(self, answer: Answer) -> None:
        """Send this answer, complete."""
        if isinstance(answer, Whole):
            body = b"" if self.request.method == "HEAD" else answer.body
            await self.raw(self.head_of(answer) + body)
            self.request.finish()
        else:
            await self.start_stream()
            await self.events(answer.events)
            await self.end_stream()

    async def start_stream(self) -> None:
        """Send the head of an event stream."""
        await self.raw(self.stream_head())

    async def events(self, events: Iterable[bytes], between: float = 0.0) -> None:
        """Send events, one HTTP chunk each, with a pause after each."""
        for event in events:
            await self.chunk(event)
            await asyncio.sleep(between)

    async def chunk(self, data: bytes) -> None:
        """Send one HTTP chunk."""
        await self.raw(framed(data))

    async def end_stream(self) -> None:
        """Send the last, empty chunk."""
        await self.raw(b"0\r\n\r\n")
        self.request.finish()

    async def raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        await self.connection.write(data)

    def reset(self) -> None:
        """Reset the connection (RST)."""
        self.connection.reset()

    def close(self) -> None:
        """Close the connection (FIN) after what was sent."""
        self.connection.close()

    async def hang(self) -> None:
        """Say nothing more until the client leaves or the server stops."""
        await asyncio.Event().wait()

    def head_of(self, answer: Whole, length: int | None = None) -> bytes:
        """The head of a whole answer, in uvicorn's order; ``length`` may lie."""
        size = len(answer.body) if length is None else length
        kind = {"content-type": answer.content_type} if answer.content_type else {}
        headers = {**answer.headers, "content-length": str(size), **kind}
        return self._head(answer.status, headers)

    def stream_head(self) -> bytes:
        """The head of an event stream."""
        return self._head(200, {"content-type": EVENT_STREAM}, {"transfer-encoding": "chunked"})

    def _head(
        self, status: int, headers: dict[str, str], framing: dict[str, str] | None = None
    ) -> bytes:
        common = {"date": formatdate(usegmt=True), "server": "uvicorn"}
        vary = {} if status == 401 else {"vary": "Origin"}
        echo = {"x-request-id": self._echo} if self._echo else {}
        last = self.request.headers.get("connection", "").lower() == "close"
        end = {"connection": "close"} if last else {}
        lines = {**common, **headers, **vary, **echo, **(framing or {}), **end}
        first = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        rest = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"{first}{rest}\r\n".encode("latin-1")


Behaviour = Callable[[Exchange], Awaitable[None]]


def framed(data: bytes) -> bytes:
    """Data as one HTTP chunk."""
    return b"%x\r\n%s\r\n" % (len(data), data)
