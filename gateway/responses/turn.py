"""One turn of the model: its stream of chunks becomes items of the output."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from gateway.errors import UpstreamError
from gateway.http.validation import NOT_JSON
from gateway.observability.call import Usage
from gateway.responses.calls import MAX_ARGUMENTS, ToolCall, safe_arguments
from gateway.responses.chunks import Choice, ToolCallDelta, decode_chunk
from gateway.responses.stream import ResponseStream
from gateway.responses.toolbox import Toolbox
from gateway.responses.writers import Check, Cite, MessageWriter, ReasoningWriter

__all__ = ["Turn"]


class Turn:
    """Reads one stream; ``calls`` are then what the model wants to be run.

    ``calls_left`` is how many calls of hosted tools are still allowed, ``most_calls`` how many
    calls of any kind this turn may make.
    """

    def __init__(
        self,
        stream: ResponseStream,
        toolbox: Toolbox,
        *,
        cite: Cite,
        check: Check | None,
        calls_left: int,
        most_calls: int,
    ) -> None:
        self._stream = stream
        self._toolbox = toolbox
        self._calls_left = calls_left
        self._most_calls = most_calls
        self._reasoning = ReasoningWriter(stream)
        self._cite = cite
        self._check = check
        self._messages = [MessageWriter(stream, cite, check)]
        self._numbered: dict[int, ToolCall] = {}
        self._open: ToolCall | None = None
        self.usage: Usage | None = None
        self.finish_reason: str | None = None

    @property
    def calls(self) -> list[ToolCall]:
        return list(self._numbered.values())

    @property
    def text(self) -> str:
        return "".join(message.text for message in self._messages)

    async def read(self, events: AsyncIterator[bytes]) -> None:
        """To the end. Raises ``UpstreamError`` for a stream that isn't a chat completion's."""
        async for data in events:
            try:
                chunk = decode_chunk(data)
            except NOT_JSON as error:
                raise UpstreamError(
                    f"The model server's stream is not one of chat completions: {error}"
                ) from None
            if chunk.usage is not None:
                self.usage = chunk.usage
            if chunk.choices:
                await self._take(chunk.choices[0])
        await self._close()

    async def leave(self) -> None:
        """It ends before the model is done: what is shown of it so far is incomplete."""
        await self._reasoning.close("incomplete")
        await self._end_call("incomplete")
        if self._messages[-1].shown:
            await self._messages[-1].close("incomplete")

    def message(self) -> dict[str, Any]:
        """The turn as a message, for the turns that follow."""
        said: dict[str, Any] = {"role": "assistant", "content": self.text}
        if self._reasoning.text:
            said["reasoning"] = self._reasoning.text
        if self._numbered:
            said["tool_calls"] = [
                {
                    "id": call.call_id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": safe_arguments(call.arguments)},
                }
                for call in self.calls
            ]
        return said

    async def _take(self, choice: Choice) -> None:
        delta = choice.delta
        if thought := delta.reasoning or delta.reasoning_content:
            await self._messages[-1].close(keep_empty=False)
            await self._reasoning.write(thought)
        if delta.content:
            message = await self._message(refusing=False)
            await message.write(delta.content, _logprobs(choice))
        if delta.refusal:
            message = await self._message(refusing=True)
            await message.refuse(delta.refusal)
        for part in delta.tool_calls or ():
            await self._call(part)
        if choice.finish_reason is not None:
            self.finish_reason = choice.finish_reason

    async def _call(self, part: ToolCallDelta) -> None:
        call = self._numbered.get(part.index)
        if call is None:
            if not part.function.name:
                return  # the rest of what nobody has begun
            await self._reasoning.close()
            await self._messages[-1].close(keep_empty=False)
            await self._end_call()
            call = self._new_call(part.id, part.function.name)
            self._numbered[part.index] = self._open = call
            await call.begin()
        if part.function.arguments:
            if call is not self._open:
                raise UpstreamError("The model server went back to a call that was over.")
            if len(call.arguments) + len(part.function.arguments) > MAX_ARGUMENTS:
                raise UpstreamError("The model wrote arguments without an end.")
            await call.write(part.function.arguments)

    async def _message(self, *, refusing: bool) -> MessageWriter:
        """The message at hand; a new one where the model goes on after a call or a thought, or
        begins to refuse.
        """
        await self._reasoning.close()
        last = self._messages[-1]
        if last.text and last.refusing != refusing:
            await last.close(keep_empty=False)
        if last.closed:
            last = MessageWriter(self._stream, self._cite, self._check)
            self._messages.append(last)
        return last

    def _new_call(self, call_id: str | None, name: str) -> ToolCall:
        binding = self._toolbox.find(name)
        refused = None
        if binding is None:
            refused = f"There is no tool named '{name}'."
        elif len(self._numbered) >= self._most_calls:
            refused = f"Only {_counted(self._most_calls)} may be made at once."
        elif binding.hosted and self._calls_left <= 0:
            refused = "No more calls of tools are allowed. Answer with what you know."
        elif binding.hosted:
            self._calls_left -= 1
        return ToolCall(self._stream, call_id, name, binding, refused)

    async def _end_call(self, status: str = "completed") -> None:
        if self._open is not None:
            await self._open.end(status)
            self._open = None

    async def _close(self) -> None:
        cut = self.finish_reason == "length"
        status = "incomplete" if cut or self.finish_reason == "content_filter" else "completed"
        await self._reasoning.close(status)
        await self._end_call(status)
        await self._messages[-1].close(status, keep_empty=False)
        # A turn without anything else has a message, be it empty.
        said = self._numbered or any(message.shown for message in self._messages)
        if not said and not (cut and self._reasoning.text):
            message = MessageWriter(self._stream, self._cite, None)
            await message.write(self.text)
            await message.close(status)


def _counted(calls: int) -> str:
    return "one call" if calls == 1 else f"{calls} calls"


def _logprobs(choice: Choice) -> Sequence[dict[str, Any]]:
    return (choice.logprobs.content or ()) if choice.logprobs is not None else ()
