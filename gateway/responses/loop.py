"""The loop of a response: the model's turn, the tools it calls, its next turn.

::

    shields ─> tools of MCP servers ─> approved calls ─┐
                                                       ▼
               ┌──────────────────────────────────> turn ──> message ─> completed
               │                                       │
               └── results <── the gateway's tools <───┴──> the caller's functions,
                                                            approvals ─> completed

It ends by itself: turns, calls, tokens and time are bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from gateway.chat.service import CHAT
from gateway.errors import GatewayError, InvalidRequest, UpstreamTimeout
from gateway.observability import semconv
from gateway.observability.activity import Activity
from gateway.relay.client import ModelClient
from gateway.responses.assignment import Assignment
from gateway.responses.calls import ToolCall, new_mcp_call
from gateway.responses.chat_request import chat_request, in_words_of_responses, shorten
from gateway.responses.citations import Sources
from gateway.responses.context import known_tools
from gateway.responses.guard import Guard
from gateway.responses.inputs import InputReader
from gateway.responses.messages import chat_messages, led
from gateway.responses.run import UNDER_WAY
from gateway.responses.stream import ResponseStream
from gateway.responses.tool_definitions import FileSearchTool, McpTool
from gateway.responses.toolbox import Toolbox
from gateway.responses.tools.file_search import FileSearch
from gateway.responses.tools.mcp import McpServers
from gateway.responses.tools.web_search import WebSearches
from gateway.responses.turn import Turn
from gateway.settings import ResponseSettings

__all__ = ["Loop", "Tools"]

Checkpoint = Callable[[], Awaitable[None]]
"""Writes down what has come so far, so that another process could go on from here."""

_MOST_SHORTENINGS = 16
_HOSTED = ("file_search_call", "web_search_call", "mcp_call")
_CALLERS_TURN = ("function_call", "mcp_approval_request")
_INTERRUPTED = "The call was interrupted; whether it had an effect is not known."


class Tools:
    """What runs the hosted tools of one response."""

    def __init__(
        self, files: FileSearch, web: WebSearches, mcp: McpServers, sources: Sources
    ) -> None:
        self.files = files
        self.web = web
        self.mcp = mcp
        self.sources = sources


class Loop:
    """Makes one response; its items and events go out by ``stream``."""

    def __init__(
        self,
        assignment: Assignment,
        stream: ResponseStream,
        *,
        client: ModelClient,
        tools: Tools,
        inputs: InputReader,
        guard: Guard | None,
        room: int,
        approval_is_usual: bool,
        settings: ResponseSettings,
        checkpoint: Checkpoint,
    ) -> None:
        self._assignment = assignment
        self._run = assignment.run
        self._stream = stream
        self._client = client
        self._tools = tools
        self._inputs = inputs
        self._guard = guard
        self._room = room
        self._approval_is_usual = approval_is_usual
        self._settings = settings
        self._checkpoint = checkpoint
        self._messages: list[dict[str, Any]] = []
        self._turn_at_hand: Turn | None = None
        self._toolbox = Toolbox((), {}, approval_is_usual=approval_is_usual)
        request = self._run.request
        self._turns = min(
            request.max_infer_iters or settings.max_iterations, settings.most_iterations
        )
        self._calls_left = min(
            request.max_tool_calls or settings.max_tool_calls, settings.max_tool_calls
        )

    async def run(self, activity: Activity) -> None:
        """To the end: the run is then completed or incomplete.

        Raises ``GatewayError`` where it fails.
        """
        request = self._run.request
        attributes: dict[str, Any] = {
            semconv.OPERATION: "invoke_agent",
            semconv.REQUEST_MODEL: request.model,
            semconv.RESPONSE_ID: self._run.id,
        }
        if request.conversation_id is not None:
            attributes[semconv.CONVERSATION_ID] = request.conversation_id
        with activity.step("invoke_agent", attributes=attributes) as step:
            try:
                async with asyncio.timeout(self._settings.timeout_seconds):
                    await self._work(step)
            except GatewayError:
                await self._leave()
                raise
            except TimeoutError:
                await self._leave()
                raise UpstreamTimeout(
                    f"The response was not done within {self._settings.timeout_seconds:g} s.",
                    code="response_timeout",
                ) from None
            finally:
                step.attributes[semconv.INPUT_TOKENS] = self._run.input_tokens
                step.attributes[semconv.OUTPUT_TOKENS] = self._run.output_tokens

    async def _leave(self) -> None:
        """End what was begun: nothing comes after it."""
        if self._turn_at_hand is not None:
            await self._turn_at_hand.leave()
        await self._stream.leave()

    async def _work(self, step: Activity) -> None:
        assignment, stream = self._assignment, self._stream
        await self._inputs.read(step, assignment.items)
        items = [item for _, item in assignment.items]
        if self._guard is not None and await self._guard.refuses_input(
            step, stream, items, self._inputs
        ):
            self._run.complete()
            return
        tools = self._run.request.tools or ()
        known = known_tools([*assignment.context.history, *self._run.output])
        served = await self._tools.mcp.tools(step, stream, known)
        self._toolbox = Toolbox(tools, served, approval_is_usual=self._approval_is_usual)
        await self._end_interrupted(step)
        made = list(self._run.output)
        self._messages = self._begin(items)
        await self._run_approved(step)
        self._messages += self._as_messages(made)
        if any(item["type"] in _CALLERS_TURN for item in made):
            self._run.complete()  # an earlier attempt came so far
            return
        await self._take_turns(step)

    async def _end_interrupted(self, step: Activity) -> None:
        """End what an earlier attempt was at. A search is made again; any other call may have had
        its effect, so that it isn't.
        """
        run, stream = self._run, self._stream
        searches = [one for one in self._toolbox if isinstance(one.tool, FileSearchTool)]
        for index, item in enumerate(run.output):
            kind = item["type"]
            self._calls_left -= kind in _HOSTED
            if item.get("status") not in UNDER_WAY:
                if kind == "file_search_call":
                    self._tools.files.remember(index, item)
            elif kind == "file_search_call" and item["queries"] and len(searches) == 1:
                self._calls_left += 1
                await self._run_call(step, ToolCall.again(stream, index, searches[0]))
            else:
                item["status"] = "failed"
                if kind == "mcp_call":
                    item["error"] = {
                        "type": "mcp_protocol_error",
                        "code": -32000,
                        "message": _INTERRUPTED,
                    }
                    await stream.about(index, "response.mcp_call.failed")
                await stream.done(index)

    def _as_messages(self, items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        return chat_messages(items, self._inputs.content, self._name_of, room=self._room)

    def _begin(self, items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        return led(self._as_messages(items), self._assignment.system)

    def _name_of(self, label: str, tool: str) -> str:
        binding = self._toolbox.of_server(label, tool)
        return binding.name if binding is not None else tool

    # Turns.

    async def _take_turns(self, step: Activity) -> None:
        run = self._run
        for number in range(run.turns, self._turns):
            tokens_left = self._tokens_left()
            if tokens_left is not None and tokens_left <= 0:
                run.cut("max_output_tokens")
                return
            turn = await self._turn(step, first=number == 0, tokens_left=tokens_left)
            run.count(turn.usage)
            self._turn_at_hand = None
            if turn.finish_reason in ("length", "content_filter"):
                length = turn.finish_reason == "length"
                await self._stream.leave()  # calls that were to be run
                run.cut("max_output_tokens" if length else "content_filter")
                return
            if not turn.calls:
                run.complete()
                return
            self._messages.append(turn.message())
            await self._checkpoint()
            results = await self._run_calls(step, turn.calls)
            await self._checkpoint()
            if any(not call.runs_here for call in turn.calls):
                run.complete()  # the caller's turn: to run a function, or to approve
                return
            self._messages += results
        run.cut("max_messages")

    async def _turn(self, step: Activity, *, first: bool, tokens_left: int | None) -> Turn:
        """One turn; with ``truncation: auto`` again without the oldest messages while the context
        is too long.
        """
        one_at_a_time = self._run.request.parallel_tool_calls is False
        begun = self._stream.next_number
        for _ in range(_MOST_SHORTENINGS):
            body = chat_request(
                self._assignment,
                self._messages,
                self._toolbox,
                first=first,
                tools_are_left=self._calls_left > 0,
                tokens_left=tokens_left,
            )
            turn = self._turn_at_hand = Turn(
                self._stream,
                self._toolbox,
                cite=self._tools.sources.annotations,
                check=None if self._guard is None else self._guard.check(step, self._messages),
                calls_left=self._calls_left,
                most_calls=1 if one_at_a_time else self._settings.max_tool_calls,
            )
            try:
                async with self._client.stream(CHAT, step, body) as events:
                    await turn.read(events)
            except InvalidRequest as error:
                shorter = None
                silent = self._stream.next_number == begun
                if error.code == "context_length_exceeded" and self._truncates and silent:
                    shorter = shorten(self._messages)
                if shorter is None:
                    raise in_words_of_responses(error) from None
                self._messages = shorter
            else:
                return turn
        raise InvalidRequest(
            "The input is too long for the model, even without its oldest parts.",
            param="input",
            code="context_length_exceeded",
        )

    @property
    def _truncates(self) -> bool:
        return self._run.request.truncation == "auto"

    def _tokens_left(self) -> int | None:
        most = self._run.request.max_output_tokens
        return None if most is None else most - self._run.output_tokens

    # Tools.

    async def _run_calls(self, step: Activity, calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
        """Run what the gateway runs, some at once; the results as messages, in the calls' order."""
        turns = asyncio.Semaphore(self._settings.parallel_tool_calls)

        async def run_one(call: ToolCall) -> str:
            async with turns:
                return await self._run_call(step, call)

        here = [call for call in calls if call.runs_here]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(run_one(call)) for call in here]
        except* GatewayError as failed:
            raise failed.exceptions[0] from None
        return [
            {"role": "tool", "tool_call_id": call.call_id, "content": task.result()}
            for call, task in zip(here, tasks, strict=True)
        ]

    async def _run_call(self, step: Activity, call: ToolCall) -> str:
        if call.refused is not None:
            return f"Error: {call.refused}"
        assert call.binding is not None  # else it is refused
        assert call.index is not None  # what runs here is seen
        self._calls_left -= 1
        tool, tools = call.binding.tool, self._tools
        with step.step(
            f"execute_tool {call.name}", attributes=_tool_attributes(call.name, call.call_id)
        ) as inner:
            if isinstance(tool, FileSearchTool):
                told = await tools.files.run(inner, self._stream, tool, call)
            elif isinstance(tool, McpTool):
                told = await tools.mcp.call(inner, self._stream, call.index, tool)
            else:
                told = await tools.web.run(inner, self._stream, tool, call)  # type: ignore[arg-type]
            if inner.keeps_content:
                inner.attributes[semconv.TOOL_ARGUMENTS] = call.arguments
                inner.attributes[semconv.TOOL_RESULT] = told
        return told

    async def _run_approved(self, step: Activity) -> None:
        """Make the calls that the caller has approved, and tell the model of those that not.

        What an earlier attempt has called isn't called again.
        """
        called = {item.get("approval_request_id") for item in self._run.output}
        for request, answer in self._assignment.approvals:
            if request["id"] in called:
                continue
            label, name = request["server_label"], request["name"]
            binding = self._toolbox.of_server(label, name)
            call_id = answer["id"]
            if not answer["approve"]:
                reason = f" The reason: {answer['reason']}" if answer.get("reason") else ""
                result = f"The user did not approve this call.{reason}"
            elif binding is None:
                result = f"Error: there is no tool '{name}' at the server '{label}' any more."
            else:
                item = new_mcp_call(binding, request["id"])
                item["arguments"] = request["arguments"]
                index = await self._stream.add(item)
                await self._stream.about(index, "response.mcp_call.in_progress")
                await self._checkpoint()
                assert isinstance(binding.tool, McpTool)  # nothing else is approved
                attributes = _tool_attributes(binding.name, call_id)
                with step.step(f"execute_tool {binding.name}", attributes=attributes) as inner:
                    result = await self._tools.mcp.call(inner, self._stream, index, binding.tool)
            function = {
                "name": binding.name if binding is not None else name,
                "arguments": request["arguments"] or "{}",
            }
            call = {"id": call_id, "type": "function", "function": function}
            self._messages += [
                {"role": "assistant", "content": "", "tool_calls": [call]},
                {"role": "tool", "tool_call_id": call_id, "content": result},
            ]
        if self._assignment.approvals:
            await self._checkpoint()


def _tool_attributes(name: str, call_id: str) -> dict[str, Any]:
    return {
        semconv.OPERATION: "execute_tool",
        semconv.TOOL_NAME: name,
        semconv.TOOL_CALL_ID: call_id,
    }
