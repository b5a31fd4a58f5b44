"""API keys for tests, made as `understudy keys` makes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gateway.audit.entry import row_of_command
from gateway.database.engine import Database
from gateway.database.migrate import upgrade
from gateway.identity.api_keys import ApiKey, ApiKeyService
from tests.support.inprocess import InProcessGateway


async def make_key(gateway: InProcessGateway, project: str = "ours", **wanted: Any) -> ApiKey:
    """A key in the database of a running gateway."""
    service = ApiKeyService(gateway.application.state.database, row_of_command)
    return await service.create(project=project, **wanted)


async def make_key_before(settings: Any, data_dir: str, **wanted: Any) -> ApiKey:
    """A key in the database of a gateway that has yet to start."""
    database = Database(settings, Path(data_dir))
    try:
        await upgrade(database)
        return await ApiKeyService(database, row_of_command).create(**wanted)
    finally:
        await database.aclose()


def bearer(key: ApiKey | str) -> dict[str, str]:
    """The header that proves it."""
    return {"authorization": f"Bearer {key if isinstance(key, str) else key.secret}"}
