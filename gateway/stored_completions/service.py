"""Chat completions that were stored, to be read again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.database.engine import Database
from gateway.database.identifiers import now
from gateway.database.paging import PageRequest
from gateway.database.tables import ChatCompletionRow
from gateway.errors import NotFound
from gateway.http.pages import Page
from gateway.identity.principal import Principal
from gateway.profile import Profile
from gateway.settings import RetentionSettings
from gateway.stored_completions.repository import StoredCompletionRepository
from gateway.stored_completions.schemas import DeletedCompletion, UpdateCompletion
from gateway.vector_stores.properties import check_metadata, check_text

__all__ = ["StoredCompletionService"]

MAX_PAGE_BYTES = 32 * 1024 * 1024
"""A page ends early rather than being larger, but has one completion at least."""
_EXPIRED_AT_ONCE = 500


class StoredCompletionService:
    """What OpenAI's API has for chat completions beside making them."""

    def __init__(self, database: Database, profile: Profile, retention: RetentionSettings) -> None:
        self._database = database
        self._profile = profile
        self._retention = retention

    async def list(
        self,
        principal: Principal,
        page: PageRequest,
        *,
        model: str | None,
        metadata: Mapping[str, str],
    ) -> Page[dict[str, Any]]:
        """Those of this model and with all of these pairs in their metadata."""
        wanted = check_metadata(metadata)
        check_text(model, "model")
        async with self._database.read() as session:
            completions = StoredCompletionRepository(session)
            rows = await completions.page(principal.project, model, wanted, page)
            ids = _fitting(rows[: page.limit])
            whole = await completions.find_all(principal.project, ids)
        shown = [_shown(whole[one]) for one in ids if one in whole]
        return self._page(shown, has_more=len(rows) > len(ids))

    async def retrieve(self, principal: Principal, completion_id: str) -> dict[str, Any]:
        """Raises ``NotFound``, as the others do."""
        return _shown(await self._found(principal, completion_id))

    async def update(
        self, principal: Principal, completion_id: str, wanted: UpdateCompletion
    ) -> dict[str, Any]:
        metadata = check_metadata(wanted.metadata)
        async with self._database.begin() as session:
            completions = StoredCompletionRepository(session)
            row = await completions.find(principal.project, completion_id, hold=True)
            if row is None:
                raise _unknown(completion_id)
            await completions.set_metadata(row, metadata)
        return _shown(row)

    async def delete(self, principal: Principal, completion_id: str) -> DeletedCompletion:
        """For good."""
        async with self._database.begin() as session:
            completions = StoredCompletionRepository(session)
            if not await completions.delete(principal.project, completion_id):
                raise _unknown(completion_id)
        return DeletedCompletion(id=completion_id)

    async def messages(
        self, principal: Principal, completion_id: str, page: PageRequest
    ) -> Page[dict[str, Any]]:
        """Those of the request, and behind them those of the answer."""
        row = await self._found(principal, completion_id)
        answers = [choice.get("message") for choice in row.completion.get("choices") or ()]
        given = [*row.messages, *answers]
        all_of_it = [
            _message(f"{row.id}-{number}", message)
            for number, message in enumerate(given)
            if isinstance(message, dict)
        ]
        if page.order == "desc":
            all_of_it.reverse()
        ids = [message["id"] for message in all_of_it]
        start = ids.index(page.after) + 1 if page.after in ids else 0
        end = start + page.limit
        return self._page(all_of_it[start:end], has_more=len(all_of_it) > end)

    async def delete_expired(self) -> int:
        """Delete those whose time is over, in every project; how many. For the reaper."""
        lifetime = self._retention.completion_seconds
        if lifetime is None:
            return 0
        oldest = (now() - lifetime) * 1_000_000
        async with self._database.begin() as session:
            return await StoredCompletionRepository(session).delete_older(oldest, _EXPIRED_AT_ONCE)

    async def _found(self, principal: Principal, completion_id: str) -> ChatCompletionRow:
        async with self._database.read() as session:
            row = await StoredCompletionRepository(session).find(principal.project, completion_id)
        if row is None:
            raise _unknown(completion_id)
        return row

    def _page(self, shown: Sequence[dict[str, Any]], *, has_more: bool) -> Page[dict[str, Any]]:
        empty = self._profile.empty_cursor
        return Page(
            data=[*shown],
            has_more=has_more,
            first_id=shown[0]["id"] if shown else empty,
            last_id=shown[-1]["id"] if shown else empty,
        )


def _fitting(rows: list[ChatCompletionRow]) -> list[str]:
    """The ids of as many rows as a page may hold."""
    ids: list[str] = []
    size = 0
    for row in rows:
        size += row.bytes
        if ids and size > MAX_PAGE_BYTES:
            break
        ids.append(row.id)
    return ids


def _shown(row: ChatCompletionRow) -> dict[str, Any]:
    return {
        **row.completion,
        "metadata": row.metadata_,
        "input_messages": row.messages,
    }


def _message(name: str, message: Mapping[str, Any]) -> dict[str, Any]:
    """A message with its id; parts of content stand apart from the text that they hold."""
    content = message.get("content")
    parts = content if isinstance(content, list) else None
    if parts is not None:
        texts = [part.get("text") for part in parts if isinstance(part, dict)]
        content = "\n".join(text for text in texts if isinstance(text, str)) or None
    return {**message, "id": name, "content": content, "content_parts": parts}


def _unknown(completion_id: str) -> NotFound:
    return NotFound(
        f"Chat completion with id '{completion_id[:100]}' not found.", param="completion_id"
    )
