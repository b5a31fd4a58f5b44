"""A response in the making."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.database.identifiers import now
from gateway.errors import GatewayError, InvalidRequest, NotFound, RateLimited
from gateway.items.including import shown
from gateway.observability.call import Usage
from gateway.responses.schemas import CreateResponse, JsonSchemaFormat
from gateway.responses.tool_definitions import shown_tool

__all__ = ["UNDER_WAY", "Run", "leave", "shown_response"]

UNDER_WAY = ("in_progress", "searching", "calling")
"""What the status of an item is that isn't done yet."""


class Run:
    """Its request, what has come of it so far, and the response object that both make.

    ``output`` holds the items whole; what ``include`` may hide is hidden where they are shown.
    """

    def __init__(
        self, response_id: str, request: CreateResponse, *, created_at: int | None = None
    ) -> None:
        self.id = response_id
        self.request = request
        self.created_at = now() if created_at is None else created_at
        self.completed_at: int | None = None
        self.status = "in_progress"
        self.error: dict[str, Any] | None = None
        self.incomplete: str | None = None
        self.output: list[dict[str, Any]] = []
        self.include = frozenset(request.include or ())
        self.input_tokens = 0
        self.cached_tokens = 0
        self.output_tokens = 0
        self.reasoning_tokens = 0
        self.turns = 0
        """How often a model was asked; there is a usage where it was."""

    def count(self, usage: Usage | None) -> None:
        """Add what one turn took."""
        self.turns += 1
        if usage is None:
            return
        self.input_tokens += usage.input or 0
        self.output_tokens += usage.output or 0
        if usage.prompt_tokens_details is not None:
            self.cached_tokens += usage.prompt_tokens_details.cached_tokens or 0
        if usage.completion_tokens_details is not None:
            self.reasoning_tokens += usage.completion_tokens_details.reasoning_tokens or 0

    def usage_so_far(self) -> list[int]:
        """For :meth:`resume`."""
        return [
            self.turns,
            self.input_tokens,
            self.cached_tokens,
            self.output_tokens,
            self.reasoning_tokens,
        ]

    def resume(self, output: list[dict[str, Any]], usage: list[int]) -> None:
        """Go on from what an earlier attempt has made and taken."""
        self.output = list(output)
        (
            self.turns,
            self.input_tokens,
            self.cached_tokens,
            self.output_tokens,
            self.reasoning_tokens,
        ) = usage

    def complete(self) -> None:
        self.status, self.completed_at = "completed", now()

    def cut(self, reason: str) -> None:
        """It ends before the model was done."""
        self.status, self.incomplete = "incomplete", reason

    def fail(self, error: GatewayError) -> None:
        """It ends with this error; an item that was not done is incomplete."""
        self.status = "failed"
        self.error = {"code": _code(error), "message": error.message}
        self._leave_items()

    def cancel(self) -> None:
        self.status = "cancelled"
        self._leave_items()

    @property
    def over(self) -> bool:
        return self.status not in ("queued", "in_progress")

    @property
    def event(self) -> str:
        """The type of the event that ends its stream; OpenAI has none for what was cancelled."""
        return "response.incomplete" if self.status == "cancelled" else f"response.{self.status}"

    def body(self) -> dict[str, Any]:
        """The response object without its ``output``."""
        request = self.request
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created_at,
            "completed_at": self.completed_at,
            "status": self.status,
            "background": request.background is True,
            "conversation": {"id": request.conversation_id} if request.conversation_id else None,
            "error": self.error,
            "frequency_penalty": request.frequency_penalty or 0.0,
            "incomplete_details": {"reason": self.incomplete} if self.incomplete else None,
            "instructions": request.instructions,
            "max_output_tokens": request.max_output_tokens,
            "max_tool_calls": request.max_tool_calls,
            "metadata": request.metadata or {},
            "model": request.model,
            "output": [],
            "parallel_tool_calls": request.parallel_tool_calls is not False,
            "presence_penalty": request.presence_penalty or 0.0,
            "previous_response_id": request.previous_response_id,
            "prompt": msgspec.to_builtins(request.prompt),
            "prompt_cache_key": request.prompt_cache_key,
            "reasoning": {
                "effort": request.reasoning.effort if request.reasoning else None,
                "summary": request.reasoning.summary if request.reasoning else None,
            },
            "safety_identifier": request.safety_identifier,
            "service_tier": "default",
            "store": request.stored,
            "temperature": 1.0 if request.temperature is None else request.temperature,
            "text": _text(request),
            "tool_choice": request.tool_choice or "auto",
            "tools": [shown_tool(tool) for tool in request.tools or ()],
            "top_logprobs": request.top_logprobs or 0,
            "top_p": 1.0 if request.top_p is None else request.top_p,
            "truncation": request.truncation or "disabled",
            "usage": self.usage() if self.turns and self.over else None,
            "user": request.user,
        }

    def shown(self) -> dict[str, Any]:
        """The response object as the caller gets it."""
        return shown_response(self.body(), self.output, self.include)

    def usage(self) -> dict[str, Any]:
        return {
            "input_tokens": self.input_tokens,
            "input_tokens_details": {
                "cached_tokens": self.cached_tokens,
                "cache_write_tokens": 0,
            },
            "output_tokens": self.output_tokens,
            "output_tokens_details": {"reasoning_tokens": self.reasoning_tokens},
            "total_tokens": self.input_tokens + self.output_tokens,
        }

    def _leave_items(self) -> None:
        for item in self.output:
            leave(item)


def leave(item: dict[str, Any]) -> None:
    """Nobody goes on with this item; OpenAI has no incomplete searches of the web."""
    if item.get("status") in UNDER_WAY:
        item["status"] = "failed" if item["type"] == "web_search_call" else "incomplete"


def shown_response(
    body: dict[str, Any], output: list[dict[str, Any]], include: frozenset[str]
) -> dict[str, Any]:
    """A response object with its items, as far as ``include`` shows them."""
    return {**body, "output": [shown(item, include) for item in output]}


def _text(request: CreateResponse) -> dict[str, Any]:
    given = request.text
    form: dict[str, Any] = {"type": "text"}
    if given is not None and given.format is not None:
        form = msgspec.to_builtins(given.format)
        if isinstance(given.format, JsonSchemaFormat):
            form["strict"] = given.format.strict is True
    verbosity = given.verbosity if given is not None else None
    return {"format": form, "verbosity": verbosity or "medium"}


def _code(error: GatewayError) -> str:
    """One of the codes that OpenAI has for failed responses."""
    if isinstance(error, RateLimited):
        return "rate_limit_exceeded"
    asked_wrongly = isinstance(error, InvalidRequest | NotFound)
    return "invalid_prompt" if asked_wrongly else "server_error"
