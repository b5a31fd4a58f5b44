"""Whoever is told of a change finds it in the audit log: who, what, when and from where."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from openai import AsyncOpenAI, NotFoundError

from gateway import cli
from gateway.audit.entry import row_of_command
from gateway.audit.recording import UNCHANGING
from gateway.audit.repository import AuditFilter, AuditRepository
from gateway.audit.service import AuditLog
from gateway.database.engine import Database
from gateway.database.migrate import upgrade
from gateway.database.paging import PageRequest
from gateway.errors import UpstreamUnavailable
from gateway.http.relayed import RELAY
from gateway.settings import DatabaseSettings
from tests.support.callers import TrustingGateway
from tests.support.upstream import FakeVllm

pytestmark = pytest.mark.anyio

READING = {"GET", "HEAD", "OPTIONS"}
SECRET = "what nobody may read in the log"


@pytest.fixture
async def gateway(
    upstream: FakeVllm, embedding_upstream: FakeVllm, tmp_path: Path
) -> AsyncIterator[TrustingGateway]:
    async with TrustingGateway(
        discover=[upstream.url, embedding_upstream.url],
        models=["fake-chat", "fake-embedding"],
        data_dir=str(tmp_path),
    ) as made:
        yield made


async def entries(gateway: TrustingGateway, **chosen: Any) -> list[dict[str, Any]]:
    """The log, the oldest first."""
    async with gateway.client() as client:
        answer = await client.get("/v1/audit", params={"order": "asc", "limit": 100, **chosen})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


async def changes(client: AsyncOpenAI) -> list[tuple[str, str]]:
    """Change something of every kind; what was done to what."""
    done = []
    file = await client.files.create(file=("a.txt", SECRET.encode()), purpose="assistants")
    done.append(("createFile", file.id))
    store = await client.vector_stores.create(name=SECRET)
    done.append(("createVectorStore", store.id))
    await client.vector_stores.update(store.id, name="other")
    done.append(("modifyVectorStore", store.id))
    await client.vector_stores.files.create(store.id, file_id=file.id)
    done.append(("createVectorStoreFile", f"{store.id}/{file.id}"))
    await client.vector_stores.files.delete(file.id, vector_store_id=store.id)
    done.append(("deleteVectorStoreFile", f"{store.id}/{file.id}"))
    await client.vector_stores.delete(store.id)
    done.append(("deleteVectorStore", store.id))
    conversation = await client.conversations.create(metadata={"a": SECRET})
    done.append(("createConversation", conversation.id))
    await client.conversations.delete(conversation.id)
    done.append(("deleteConversation", conversation.id))
    response = await client.responses.create(model="fake-chat", input=SECRET)
    done.append(("createResponse", response.id))
    async with client.responses.stream(model="fake-chat", input=SECRET) as stream:
        streamed = (await stream.get_final_response()).id
    done.append(("createResponse", streamed))
    await client.responses.delete(response.id)
    done.append(("deleteResponse", response.id))
    asked = [{"role": "user", "content": SECRET}]
    kept = await client.chat.completions.create(model="fake-chat", messages=asked, store=True)
    done.append(("createChatCompletion", kept.id))
    await client.chat.completions.delete(kept.id)
    done.append(("deleteChatCompletion", kept.id))
    upload = await client.uploads.create(
        bytes=3, filename="b.txt", mime_type="text/plain", purpose="assistants"
    )
    done.append(("createUpload", upload.id))
    part = await client.uploads.parts.create(upload.id, data=b"abc")
    done.append(("addUploadPart", f"{upload.id}/{part.id}"))
    await client.uploads.complete(upload.id, part_ids=[part.id])
    done.append(("completeUpload", upload.id))
    await client.files.delete(file.id)
    done.append(("deleteFile", file.id))
    return done


async def test_every_kind_of_change_is_there(gateway: TrustingGateway):
    """In their order, with who did it, to what, when, and from which address; without content."""
    client = gateway.caller("red", key="key_1", subject="ada")
    before = int(time.time())
    done = await changes(client)
    found = await entries(gateway)
    assert [(one["action"], one["object_id"]) for one in found] == done
    for one in found:
        assert one["project_id"] == "red"
        assert (one["subject"], one["api_key_id"]) == ("ada", "key_1")
        assert one["address"] == "127.0.0.1"
        assert one["status"] == 200
        assert before <= one["effective_at"] <= time.time()
        assert one["request_id"].startswith("req_")
        assert one["method"] in ("POST", "DELETE")
    assert SECRET not in json.dumps(found)


async def test_the_request_id_is_the_answers(gateway: TrustingGateway):
    """What a caller is told is what an auditor finds."""
    raw = await gateway.caller().files.with_raw_response.create(
        file=("a.txt", b"text"), purpose="assistants"
    )
    [entry] = await entries(gateway)
    assert entry["request_id"] == raw.headers["x-request-id"]


async def test_what_is_refused_is_there_too(gateway: TrustingGateway):
    """With the status that it was refused by."""
    with pytest.raises(NotFoundError):
        await gateway.caller("red").files.delete("file-1234")
    [entry] = await entries(gateway)
    assert (entry["action"], entry["status"], entry["object_id"]) == (
        "deleteFile",
        404,
        "file-1234",
    )


async def test_reading_and_asking_models_is_no_change(gateway: TrustingGateway):
    """Nor is a response that isn't stored, or a path that leads nowhere."""
    client = gateway.caller()
    await client.chat.completions.create(
        model="fake-chat", messages=[{"role": "user", "content": "Hi"}]
    )
    await client.embeddings.create(model="fake-embedding", input="a")
    await client.responses.create(model="fake-chat", input="Hi", store=False)
    async with client.responses.stream(model="fake-chat", input="Hi", store=False) as stream:
        await stream.until_done()
    await client.files.list()
    async with gateway.client() as http:
        await http.post("/v1/nothing", json={})
        await http.post("/v1/chat/completions/", json={})
    assert await entries(gateway) == []


async def test_every_route_is_either_a_change_or_known_not_to_be(gateway: TrustingGateway):
    """A new route by POST is in the log unless someone has said that it changes nothing."""
    changing = {
        handler.name
        for handler in gateway.application.handlers
        if handler.http_methods - READING and RELAY not in handler.opt
    }
    assert changing >= UNCHANGING
    assert None not in changing


async def test_nobody_is_told_of_a_change_that_the_log_does_not_have(
    gateway: TrustingGateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """A log that can't be written makes a change a 503; what is refused anyway stays so."""

    async def away(*_: Any) -> None:
        raise UpstreamUnavailable("away")

    monkeypatch.setattr(AuditLog, "write", away)
    async with gateway.client() as client:
        answer = await client.post("/v1/conversations", json={})
        refused = await client.delete("/v1/files/file-1234")
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "audit_unavailable"
    assert answer.headers["retry-after"]
    assert refused.status_code == 404
    assert "An audit entry could not be written" in caplog.text


async def test_a_fault_inside_the_gateway_is_in_the_log(
    gateway: TrustingGateway, monkeypatch: pytest.MonkeyPatch
):
    """A change that ended in a 500 may have been made."""

    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(gateway.application.agentic.conversations, "create", broken)
    async with gateway.client() as client:
        assert (await client.post("/v1/conversations", json={})).status_code == 500
    [entry] = await entries(gateway)
    assert (entry["action"], entry["status"]) == ("createConversation", 500)


async def test_odd_bytes_do_not_keep_an_entry_out(gateway: TrustingGateway):
    """A NUL, which PostgreSQL can't hold, or a name of any length."""
    async with gateway.client() as client:
        await client.delete("/v1/files/file-%00")
        await client.delete(f"/v1/files/{'a' * 3000}")
    first, second = await entries(gateway)
    assert first["object_id"] == "file-\ufffd"
    assert len(second["object_id"]) <= 500


async def make_some(gateway: TrustingGateway) -> None:
    for project, times in (("red", 3), ("blue", 2)):
        client = gateway.caller(project, subject="=ada")
        for _ in range(times):
            await client.conversations.create()


async def test_a_project_sees_its_own_changes(gateway: TrustingGateway):
    """The scope admin sees all, and may choose one."""
    await make_some(gateway)
    own = {"x-test-project": "red", "x-test-scopes": "files"}
    async with gateway.client(headers=own) as client:
        found = (await client.get("/v1/audit")).json()["data"]
        other = await client.get("/v1/audit", params={"project_id": "blue"})
        exported = await client.get("/v1/audit", params={"project_id": "blue", "format": "csv"})
    assert {one["project_id"] for one in found} == {"red"}
    assert (other.status_code, exported.status_code) == (403, 403)
    assert other.json()["error"]["code"] == "insufficient_scope"
    assert len(await entries(gateway)) == 5
    assert len(await entries(gateway, project_id="blue")) == 2


async def test_the_log_is_read_by_pages_and_by_what_is_looked_for(gateway: TrustingGateway):
    """With OpenAI's cursors; filters take one value each."""
    await make_some(gateway)
    async with gateway.client() as client:
        first = (await client.get("/v1/audit", params={"limit": 3})).json()
        rest = (
            await client.get("/v1/audit", params={"limit": 3, "after": first["last_id"]})
        ).json()
    ids = [one["id"] for one in [*first["data"], *rest["data"]]]
    assert (len(ids), len(set(ids)), first["has_more"], rest["has_more"]) == (5, 5, True, False)
    assert await entries(gateway, action="deleteFile") == []
    [one] = await entries(gateway, object_id=first["data"][0]["object_id"])
    assert one["id"] == ids[0]
    assert len(await entries(gateway, subject="=ada")) == 5
    assert await entries(gateway, end_time=1) == []


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("order=up", "order"),
        ("format=xml", "format"),
        ("start_time=-1", "start_time"),
        ("end_time=99999999999999", "end_time"),
        ("action=%00", "action"),
        ("start_time=soon", "start_time"),
    ],
)
async def test_a_bad_question_names_its_parameter(gateway: TrustingGateway, query: str, param: str):
    """In OpenAI's shape."""
    async with gateway.client() as client:
        answer = await client.get(f"/v1/audit?{query}")
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


async def test_the_log_can_be_exported(gateway: TrustingGateway, tmp_path: Path):
    """As CSV, in which nothing is a formula, and as JSON lines; by the route and the command."""
    await make_some(gateway)
    async with gateway.client() as client:
        as_csv = await client.get("/v1/audit", headers={"accept": "text/csv"})
        as_lines = await client.get("/v1/audit", params={"format": "jsonl"})
    rows = list(csv.DictReader(io.StringIO(as_csv.text)))
    assert as_csv.headers["content-type"].startswith("text/csv")
    assert {row["subject"] for row in rows} == {"'=ada"}
    lines = [json.loads(line) for line in as_lines.text.splitlines()]
    assert [row["id"] for row in rows] == [line["id"] for line in lines]
    assert lines == await entries(gateway)


def test_the_command_exports_the_log(tmp_path: Path):
    """What `understudy audit export` writes for a folder with an entry in it."""

    async def prepare() -> None:
        database = Database(DatabaseSettings(), tmp_path)
        await upgrade(database)
        await AuditLog(database, None).write(row_of_command("red", "keys.create", "key_1"))
        await database.aclose()

    asyncio.run(prepare())
    run = CliRunner().invoke(
        cli.main, ["audit", "export", "--data-dir", str(tmp_path), "--since", "2020-01-01"]
    )
    assert run.exit_code == 0, run.output
    entry = json.loads(run.output)
    assert (entry["action"], entry["object_id"], entry["status"]) == ("keys.create", "key_1", 0)
    assert entry["subject"].startswith("cli:")
    none = CliRunner().invoke(
        cli.main, ["audit", "export", "--data-dir", str(tmp_path), "--until", "2020-01-01"]
    )
    assert none.output == ""


async def test_old_entries_are_forgotten(database: Database):
    """After retention.audit_seconds, and no sooner."""
    old, new = row_of_command("red", "old", "a"), row_of_command("red", "new", "b")
    old.sequence = int((time.time() - 100) * 1e6)
    log = AuditLog(database, 50)
    await log.write(old)
    await log.write(new)
    assert await log.forget() == 1
    assert await log.forget() == 0
    assert await AuditLog(database, None).forget() == 0
    async with database.read() as session:
        rows = await AuditRepository(session).page(AuditFilter(), PageRequest())
    assert [row.action for row in rows] == ["new"]
