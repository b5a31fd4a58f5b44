"""Items that a model writes, and the events that tell of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from gateway.items.parsing import item_id
from gateway.responses.sealed import seal
from gateway.responses.stream import ResponseStream

ENCRYPTED = "reasoning.encrypted_content"

__all__ = ["Check", "Cite", "MessageWriter", "ReasoningWriter"]

Check = Callable[[str], Awaitable[str | None]]
"""Judges a text; what is said in its place where it may not be shown."""

Cite = Callable[[str], list[dict[str, Any]]]
"""The annotations of a text."""


class ReasoningWriter:
    """A model's thoughts, as a ``reasoning`` item."""

    def __init__(self, stream: ResponseStream) -> None:
        self._stream = stream
        self._text: list[str] = []
        self._earlier = 0
        """How many of these are in items that are done."""
        self._index: int | None = None

    @property
    def text(self) -> str:
        """All of a turn's thoughts."""
        return "".join(self._text)

    async def write(self, delta: str) -> None:
        if self._index is None:
            item = {
                "id": item_id("reasoning"),
                "type": "reasoning",
                "status": "in_progress",
                "summary": [],
                "content": [],
            }
            self._index = await self._stream.add(item)
            await self._stream.about(
                self._index,
                "response.content_part.added",
                content_index=0,
                part={"type": "reasoning_text", "text": ""},
            )
        self._text.append(delta)
        await self._stream.about(
            self._index, "response.reasoning_text.delta", content_index=0, delta=delta
        )

    async def close(self, status: str = "completed") -> None:
        if self._index is None:
            return
        text = "".join(self._text[self._earlier :])
        self._earlier = len(self._text)
        part = {"type": "reasoning_text", "text": text}
        item = self._stream.run.output[self._index]
        item["content"], item["status"] = [part], status
        if ENCRYPTED in self._stream.run.include:
            item["encrypted_content"] = seal(text)
        about = self._stream.about
        await about(self._index, "response.reasoning_text.done", content_index=0, text=text)
        await about(self._index, "response.content_part.done", content_index=0, part=dict(part))
        await self._stream.done(self._index)
        self._index = None


class MessageWriter:
    """A ``message`` item of the assistant with one part, text or a refusal.

    With ``check`` nothing is shown before the whole text has been judged. Space at the beginning
    is held back until there is a word, since models put some before they call a tool.
    """

    def __init__(self, stream: ResponseStream, cite: Cite, check: Check | None) -> None:
        self._stream = stream
        self._cite = cite
        self._check = check
        self._held: list[str] = []
        self._text: list[str] = []
        self._logprobs: list[dict[str, Any]] = []
        self._index: int | None = None
        self.refusing = False
        self.closed = False

    @property
    def shown(self) -> bool:
        """Whether there is an item of it."""
        return self._index is not None

    @property
    def text(self) -> str:
        return "".join(self._text)

    async def write(self, delta: str, logprobs: Sequence[dict[str, Any]] = ()) -> None:
        shown = [_logprob(one) for one in logprobs]
        self._logprobs += shown
        self._text.append(delta)
        if self._check is not None:
            return
        if self._index is None:
            self._held.append(delta)
            if not delta.strip():
                return
            delta = "".join(self._held)
            shown = self._logprobs
            await self._open()
        await self._show(delta, shown)

    async def refuse(self, delta: str) -> None:
        """The model's own refusal, in its stream."""
        if self._index is None:
            self.refusing = True
            await self._open()
        self._text.append(delta)
        assert self._index is not None  # opened
        await self._stream.about(
            self._index, "response.refusal.delta", content_index=0, delta=delta
        )

    async def close(self, status: str = "completed", *, keep_empty: bool = True) -> None:
        """``keep_empty`` says whether space alone makes a message."""
        if self.closed:
            return
        self.closed = True
        text = self.text
        if self._index is None:
            if not text.strip() and not keep_empty:
                return
            refusal = await self._check(text) if self._check is not None and text else None
            if refusal is not None:
                self._text, self._logprobs, text = [], [], refusal
                await self.refuse(refusal)
            else:
                await self._open()
                if text:
                    await self._show(text, self._logprobs)
        if self.refusing:
            await self._close_refusal(status)
        else:
            await self._close_text(text, status)

    async def _open(self) -> None:
        item = {
            "id": item_id("message"),
            "type": "message",
            "status": "in_progress",
            "role": "assistant",
            "content": [],
        }
        self._index = await self._stream.add(item)
        part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": []}
        part["logprobs"] = []
        if self.refusing:
            part = {"type": "refusal", "refusal": ""}
        await self._stream.about(
            self._index, "response.content_part.added", content_index=0, part=part
        )

    async def _show(self, delta: str, logprobs: Sequence[dict[str, Any]]) -> None:
        assert self._index is not None  # opened
        await self._stream.about(
            self._index,
            "response.output_text.delta",
            content_index=0,
            delta=delta,
            logprobs=list(logprobs),
        )

    async def _close_text(self, text: str, status: str) -> None:
        assert self._index is not None  # opened
        index, about = self._index, self._stream.about
        annotations = self._cite(text)
        for place, annotation in enumerate(annotations):
            await about(
                index,
                "response.output_text.annotation.added",
                content_index=0,
                annotation_index=place,
                annotation=annotation,
            )
        part = {
            "type": "output_text",
            "text": text,
            "annotations": annotations,
            "logprobs": self._logprobs,
        }
        await about(
            index,
            "response.output_text.done",
            content_index=0,
            text=text,
            logprobs=self._logprobs,
        )
        await self._finish(index, part, status)

    async def _close_refusal(self, status: str) -> None:
        assert self._index is not None  # opened
        index = self._index
        await self._stream.about(index, "response.refusal.done", content_index=0, refusal=self.text)
        await self._finish(index, {"type": "refusal", "refusal": self.text}, status)

    async def _finish(self, index: int, part: dict[str, Any], status: str) -> None:
        item = self._stream.run.output[index]
        item["content"], item["status"] = [part], status
        await self._stream.about(
            index, "response.content_part.done", content_index=0, part=dict(part)
        )
        await self._stream.done(index)


def _logprob(given: dict[str, Any]) -> dict[str, Any]:
    """A chat completion's log probability; vLLM may leave ``bytes`` null."""
    top = given.get("top_logprobs") or []
    return {
        "token": given.get("token", ""),
        "logprob": given.get("logprob", 0.0),
        "bytes": given.get("bytes") or [],
        "top_logprobs": [
            {
                "token": one.get("token", ""),
                "logprob": one.get("logprob", 0.0),
                "bytes": one.get("bytes") or [],
            }
            for one in top
        ],
    }
