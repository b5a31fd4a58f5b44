"""What a response builds on: earlier responses, a conversation, and the items of its input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.conversations.repository import ConversationRepository
from gateway.database.engine import Database
from gateway.errors import InvalidRequest, NotFound
from gateway.identity.principal import Principal
from gateway.items.parsing import parse_items, user_message
from gateway.ports import ServedTool
from gateway.responses.repository import UNFINISHED, ResponseRepository

__all__ = ["Context", "ContextReader", "approvals", "known_tools"]


class Context(Struct, frozen=True, kw_only=True):
    """``history`` is what was there before, ``input`` what came with the request."""

    history: list[dict[str, Any]]
    input: list[dict[str, Any]]

    @property
    def items(self) -> list[dict[str, Any]]:
        return [*self.history, *self.input]


class _Stored:
    """What a project has kept, in one transaction."""

    def __init__(self, session: AsyncSession, project: str) -> None:
        self.project = project
        self.responses = ResponseRepository(session)
        self.conversations = ConversationRepository(session)

    async def item(self, item_id: str) -> dict[str, Any] | None:
        """The item of this id, wherever it is."""
        found = await self.responses.find_item(self.project, item_id)
        return found or await self.conversations.find_item(self.project, item_id)


class ContextReader:
    def __init__(self, database: Database, max_items: int) -> None:
        self._database = database
        self._max_items = max_items

    async def read(
        self,
        principal: Principal,
        given: str | Sequence[Any] | None,
        *,
        previous_id: str | None,
        conversation_id: str | None,
    ) -> Context:
        """Raises ``InvalidRequest`` and ``NotFound``, in OpenAI's words."""
        if previous_id is not None and conversation_id is not None:
            raise InvalidRequest(
                "Mutually exclusive parameters: 'previous_response_id' and 'conversation'.",
                param="conversation",
                code="mutually_exclusive_parameters",
            )
        if not isinstance(given, str | None) and len(given) > self._max_items:
            raise InvalidRequest(
                f"Invalid 'input': at most {self._max_items} items (responses.max_context_items).",
                param="input",
                code="array_above_max_length",
            )
        items = _items(given)
        needs_database = (
            previous_id is not None
            or conversation_id is not None
            or any(item["type"] == "item_reference" for item in items)
        )
        if not needs_database:
            return Context(history=[], input=items)
        async with self._database.read() as session:
            stored = _Stored(session, principal.project)
            history = await self._history(stored, previous_id, conversation_id)
            if len(history) > self._max_items:
                raise InvalidRequest(
                    f"The context has more than {self._max_items} items "
                    "(responses.max_context_items). Begin anew, or compact it.",
                    param="previous_response_id" if previous_id else "conversation",
                    code="context_length_exceeded",
                )
            return Context(history=history, input=await _resolved(stored, items, history))

    async def _history(
        self, stored: _Stored, previous_id: str | None, conversation_id: str | None
    ) -> list[dict[str, Any]]:
        if previous_id is not None:
            return await self._chain(stored.responses, stored.project, previous_id)
        if conversation_id is None:
            return []
        if not await stored.conversations.exists(stored.project, conversation_id):
            raise NotFound(
                f"Conversation with id '{conversation_id}' not found.", param="conversation"
            )
        return await stored.conversations.items(
            stored.project, conversation_id, self._max_items + 1
        )

    async def _chain(
        self, responses: ResponseRepository, project: str, previous_id: str
    ) -> list[dict[str, Any]]:
        chain = await responses.chain(project, previous_id, self._max_items + 1)
        if not chain:
            raise InvalidRequest(
                f"Previous response with id '{previous_id}' not found.",
                param="previous_response_id",
                code="previous_response_not_found",
            )
        if chain[-1].status in UNFINISHED:
            raise InvalidRequest(
                f"Response with id '{previous_id}' is not over yet: it is {chain[-1].status}.",
                param="previous_response_id",
                code="previous_response_not_over",
            )
        return [
            item
            for row in chain
            for item in [*row.input, *(one for one in row.output if _counts(one))]
        ]


def _items(given: str | Sequence[Any] | None) -> list[dict[str, Any]]:
    if given is None:
        return []
    return [user_message(given)] if isinstance(given, str) else parse_items(given, "input")


async def _resolved(
    stored: _Stored, items: Sequence[dict[str, Any]], history: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The items with what they refer to; what the context has already isn't put there again."""
    known = {item["id"] for item in history}
    known |= {item["id"] for item in items if item["type"] != "item_reference"}
    resolved = []
    for place, item in enumerate(items):
        if item["type"] != "item_reference":
            resolved.append(item)
        elif item["id"] not in known:
            found = await stored.item(item["id"])
            if found is None:
                raise NotFound(
                    f"Item with id '{item['id']}' not found.", param=f"input[{place}].id"
                )
            known.add(item["id"])
            resolved.append(found)
    return resolved


def _counts(item: dict[str, Any]) -> bool:
    """Whether later turns see it: half a message or a call that was cut off says nothing."""
    return item["type"] in ("message", "reasoning") or item.get("status") != "incomplete"


def known_tools(items: Sequence[dict[str, Any]]) -> dict[str, list[ServedTool]]:
    """The tools that MCP servers were found to have earlier, by the servers' labels."""
    return {
        item["server_label"]: [
            ServedTool(
                name=tool["name"],
                description=tool.get("description"),
                input_schema=tool.get("input_schema") or {},
                annotations=tool.get("annotations"),
            )
            for tool in item.get("tools") or ()
            if isinstance(tool.get("name"), str)
        ]
        for item in items
        if item["type"] == "mcp_list_tools" and not item.get("error")
    }


def approvals(context: Context) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """What the input approves or denies: each request with its answer.

    Raises ``InvalidRequest`` for an answer to a request that isn't in the context, and for one
    that was answered before.
    """
    requests = {i["id"]: i for i in context.items if i["type"] == "mcp_approval_request"}
    answered = {
        item["approval_request_id"]
        for item in context.history
        if item["type"] == "mcp_approval_response"
    }
    found = []
    for place, item in enumerate(context.input):
        if item["type"] != "mcp_approval_response":
            continue
        request_id = item["approval_request_id"]
        param = f"input[{place}].approval_request_id"
        if request_id not in requests:
            raise InvalidRequest(f"No approval request found with id '{request_id}'.", param=param)
        if request_id in answered:
            raise InvalidRequest(
                f"The approval request '{request_id}' was answered already.", param=param
            )
        answered.add(request_id)
        found.append((requests[request_id], item))
    return found
