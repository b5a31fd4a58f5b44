"""Stand-in until the slice is merged."""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession


class ConversationRepository:
    def __init__(self, session: AsyncSession) -> None: ...
    async def exists(self, project: str, conversation_id: str) -> bool:
        return False

    async def items(self, project: str, conversation_id: str, limit: int) -> list[dict[str, Any]]:
        return []

    async def find_item(self, project: str, item_id: str) -> dict[str, Any] | None:
        return None

    async def append(self, project: str, conversation_id: str, items: Any) -> None: ...
