"""A caller writes only what is the caller's to write, and reads only what is meant to be read:
properties that are nobody's business change nothing, and none of the gateway's own is shown."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import select

import gateway.app
from gateway.contract import openapi_document
from gateway.database.tables import Base
from tests.support.belongings import make_everything
from tests.support.inprocess import InProcessGateway
from tests.support.memory import MemoryVectorIndex
from tests.support.upstream import FakeVllm

pytestmark = pytest.mark.anyio

CREATED = 1234567
ASSIGNED = {
    "id": "file-mine",
    "project": "theirs",
    "project_id": "theirs",
    "tenant_id": "theirs",
    "owner": "theirs",
    "object": "mine",
    "status": "expired",
    "created_at": CREATED,
    "deleted_at": CREATED,
    "completed_at": CREATED,
    "usage_bytes": 0,
    "version_created": 7,
    "is_admin": True,
    "__class__": "x",
    "__proto__": {"project": "theirs"},
}
INTERNAL = {
    "project",
    "sequence",
    "deleted_at",
    "digest",
    "object_key",
    "attempt",
    "holder",
    "lease",
}
"""Columns that nobody outside has a word for, if only because there is a test of them here."""


@pytest.fixture(scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[InProcessGateway]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gateway.app, "_vector_index", lambda *_: MemoryVectorIndex())
        async with (
            FakeVllm(["fake-chat"]) as chat,
            FakeVllm(["fake-embedding"], kind="embedding") as embedding,
            InProcessGateway(
                discover=[chat.url, embedding.url],
                models=["fake-chat", "fake-embedding"],
                data_dir=str(tmp_path_factory.mktemp("properties")),
                traced=False,
                ingestion={"attach_wait_seconds": 20},
            ) as started,
        ):
            yield started


@pytest.fixture
async def http(running: InProcessGateway) -> AsyncIterator[httpx.AsyncClient]:
    async with running.client() as client:
        yield client


async def test_nobody_assigns_what_the_gateway_gives(running, http):
    """Ids, projects, states and times in a body are as if they weren't there, on every route that
    makes or changes something, and whatever is made is the caller's project's."""
    started = int(time.time())
    for path, made in (await make_everything(http, ASSIGNED)).items():
        assert made.get("id") != "file-mine", path
        assert made.get("object") != "mine", path
        assert made.get("status") != "expired", path
        for at in ("created_at", "completed_at", "last_active_at"):
            assert made.get(at) is None or made[at] >= started, (path, at)
        assert {"project", "owner", "is_admin", "__proto__"}.isdisjoint(made), path
    async with running.application.state.database.read() as session:
        for table in Base.metadata.sorted_tables:
            if "project" in table.columns:
                projects = (await session.execute(select(table.c.project).distinct())).scalars()
                assert set(projects) <= {"default"}, table.name


def keys(value: Any) -> Iterator[str]:
    """The names of all properties, however deep; what callers named themselves is left out."""
    if isinstance(value, list):
        for one in value:
            yield from keys(one)
    elif isinstance(value, dict):
        for name, one in value.items():
            yield name
            if name not in ("metadata", "attributes"):
                yield from keys(one)


def documented(schema: Any) -> Iterator[str]:
    """The names of properties that schemas have."""
    if isinstance(schema, list):
        for one in schema:
            yield from documented(one)
    elif isinstance(schema, dict):
        yield from schema.get("properties", {})
        for one in schema.values():
            yield from documented(one)


async def test_nothing_that_is_only_kept_is_shown(running, http):
    """No answer has a property that is the name of a column and not of the documented API."""
    columns = {column.name for table in Base.metadata.sorted_tables for column in table.columns}
    named = set(documented(openapi_document(running.application.handlers)))
    internal = columns - named
    assert INTERNAL & columns <= internal
    made = await make_everything(http)
    shown: dict[str, Any] = dict(made)
    for path in (
        "/v1/files",
        "/v1/vector_stores",
        "/v1/batches",
        "/v1/responses",
        "/v1/prompts",
        "/v1/chat/completions",
    ):
        answer = await http.get(path)
        assert answer.status_code == 200
        shown[f"GET {path}"] = answer.json()
    store = made["/v1/vector_stores"]["id"]
    for tail in ("files", "search"):
        path = f"/v1/vector_stores/{store}/{tail}"
        answer = await (
            http.post(path, json={"query": "lamp"}) if tail == "search" else http.get(path)
        )
        assert answer.json()["data"]
        shown[path] = answer.json()
    generic = {"input", "request", "response", "text", "content", "name", "value", "position"}
    for path, answer in shown.items():
        assert set(keys(answer)) & (internal - generic) == set(), path
