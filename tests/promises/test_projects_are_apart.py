"""What belongs to a project is nobody else's: on every route that keeps state, another project's
objects are as if they weren't there."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

import gateway.app
from gateway.database.tables import ChunkRow
from tests.support.inprocess import InProcessGateway
from tests.support.keys import bearer, make_key
from tests.support.memory import MemoryVectorIndex
from tests.support.upstream import FakeVllm

pytestmark = pytest.mark.anyio

MODEL = "fake-embedding"
RAG = "/v1/tool-runtime/rag-tool"
DOCUMENTS = [{"document_id": "d", "content": "x"}]
CHAT = "fake-chat"
TEXT = "The lamp of the lighthouse turns at night."
REPLY = "It is the keeper who sleeps."


GUARD = "llama-guard-4-12b"

EVERYBODYS = {
    "model": "models are the gateway's; keys say which ones a caller may use",
    "provider_id": "providers are the gateway's, for operators",
    "connector_id": "connectors are the configuration's",
}
"""Parameters of paths that name nothing of a project's."""


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def sections(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings of a gateway on either database."""
    if request.param == "sqlite":
        return {}
    postgres = request.getfixturevalue("postgres")
    template = request.getfixturevalue("postgres_template")
    return {"database": {"url": postgres.create_database(template)}}


@pytest.fixture(scope="module")
async def embedding() -> AsyncIterator[FakeVllm]:
    async with FakeVllm([MODEL], kind="embedding") as server:
        yield server


@pytest.fixture(scope="module")
async def chat() -> AsyncIterator[FakeVllm]:
    async with FakeVllm(["fake-chat"], reply=REPLY) as server:
        yield server


@pytest.fixture(scope="module")
async def running(
    sections: dict[str, Any],
    embedding: FakeVllm,
    chat: FakeVllm,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[InProcessGateway]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gateway.app, "_vector_index", lambda *_: MemoryVectorIndex())
        async with (
            FakeVllm([GUARD], reply="safe") as guard,
            InProcessGateway(
                discover=[embedding.url, chat.url, guard.url],
                models=[MODEL, CHAT, GUARD],
                data_dir=str(tmp_path_factory.mktemp("projects")),
                identity={"mode": "api_keys"},
                ingestion={"attach_wait_seconds": 20},
                tools={"allowed_hosts": ["127.0.0.1"]},
                **sections,
            ) as started,
        ):
            yield started


@pytest.fixture(scope="module")
async def ours(running: InProcessGateway) -> AsyncIterator[httpx.AsyncClient]:
    """With a key of the one project."""
    key = await make_key(running, "ours")
    async with running.client(headers=bearer(key)) as client:
        yield client


@pytest.fixture(scope="module")
async def theirs(running: InProcessGateway) -> AsyncIterator[httpx.AsyncClient]:
    """With a key of the other."""
    key = await make_key(running, "theirs")
    async with running.client(headers=bearer(key)) as client:
        yield client


async def send(client: httpx.AsyncClient, path: str, **options: Any) -> Any:
    answer = await client.post(path, **options)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def fill(client: httpx.AsyncClient) -> dict[str, str]:
    """One of everything, by what paths call it."""
    stored = {"files": {"file": ("a.txt", TEXT.encode())}, "data": {"purpose": "assistants"}}
    file = await send(client, "/v1/files", **stored)
    store = await send(client, "/v1/vector_stores", json={"name": "s"})
    path = f"/v1/vector_stores/{store['id']}"
    attached = await send(client, f"{path}/files", json={"file_id": file["id"]})
    assert attached["status"] == "completed", attached
    batch = await send(client, f"{path}/file_batches", json={"file_ids": [file["id"]]})
    upload = await send(
        client,
        "/v1/uploads",
        json={"bytes": 1, "filename": "a", "mime_type": "a/b", "purpose": "assistants"},
    )
    part = await send(client, f"/v1/uploads/{upload['id']}/parts", files={"data": b"a"})
    chunk = {"content": "A boat.", "chunk_id": "c", "metadata": {"document_id": "d"}}
    inserted = {"vector_store_id": store["id"], "chunks": [chunk]}
    await send(client, "/v1/vector-io/insert", json=inserted)
    said = {"role": "user", "content": TEXT}
    conversation = await send(client, "/v1/conversations", json={})
    path = f"/v1/conversations/{conversation['id']}/items"
    item = (await send(client, path, json={"items": [said]}))["data"][0]
    prompt = await send(client, "/v1/prompts", json={"prompt": TEXT})
    asked = {"model": CHAT, "messages": [said], "store": True, "metadata": {"a": "b"}}
    completion = await send(client, "/v1/chat/completions", json=asked)
    response = await send(client, "/v1/responses", json={"model": CHAT, "input": TEXT})
    name = file["id"].removeprefix("file-")
    shield = {"shield_id": f"shield-{name}", "provider_shield_id": GUARD}
    await send(client, "/v1/shields", json=shield)
    group = {"toolgroup_id": f"mcp::{name}", "provider_id": "model-context-protocol"}
    await send(
        client,
        "/v1/toolgroups",
        json={**group, "mcp_endpoint": {"uri": f"http://127.0.0.1:9/{name}"}},
    )
    done = await batch_over(client, {"idempotency_key": name})
    return {
        "identifier": shield["shield_id"],
        "toolgroup_id": group["toolgroup_id"],
        "tool_name": name,
        "batches.batch_id": done["id"],
        "response_id": response["id"],
        "output_id": response["output"][0]["id"],
        "conversation_id": conversation["id"],
        "item_id": item["id"],
        "prompt_id": prompt["prompt_id"],
        "completion_id": completion["id"],
        "file_id": file["id"],
        "vector_store_id": store["id"],
        "batch_id": batch["id"],
        "upload_id": upload["id"],
        "part_id": part["id"],
    }


async def batch_over(client: httpx.AsyncClient, wanted: Mapping[str, Any]) -> Any:
    """A batch of one line, done."""
    embed = {"model": MODEL, "input": TEXT}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": embed}
    upload = {"files": {"file": json.dumps(line).encode()}, "data": {"purpose": "batch"}}
    file = await send(client, "/v1/files", **upload)
    usual = {"endpoint": "/v1/embeddings", "completion_window": "24h"}
    batch = await send(client, "/v1/batches", json={**usual, **wanted, "input_file_id": file["id"]})
    async with asyncio.timeout(30):
        while batch["status"] != "completed":
            await asyncio.sleep(0.05)
            batch = (await client.get(f"/v1/batches/{batch['id']}")).json()
    return batch


def path_of(components: list[Any], ids: Mapping[str, str]) -> str:
    """A route with these ids in it; a name may mean something else below another resource."""
    parts, above = [], ""
    for one in components:
        if isinstance(one, str):
            parts.append(one)
            above = one
        else:
            parts.append(ids.get(f"{above}.{one.name}", ids.get(one.name, "")))
    return "/" + "/".join(parts)


def routes_with_ids(running: InProcessGateway) -> list[tuple[str, list[Any], list[str]]]:
    """Method, components and names of parameters, of each route that names something."""
    found = []
    for route in running.application.litestar.routes:
        names = [one.name for one in route.path_components if not isinstance(one, str)]
        if not names or names[0] in EVERYBODYS:
            continue
        found += [
            (method, route.path_components, names)
            for method in sorted(set(route.methods) - {"OPTIONS"})
        ]
    return found


def ending_of(components: list[Any]) -> tuple[str, ...]:
    shown = (one if isinstance(one, str) else f"{{{one.name}}}" for one in components)
    return tuple(shown)[-2:]


def bodies(ids: Mapping[str, str]) -> dict[tuple[str, str], Any]:
    """What a right request to each route of `POST` sends, by the last of its path."""
    update = {"json": {"prompt": "mine", "version": 1}}
    return {
        ("conversations", "{conversation_id}"): {"json": {"metadata": {"a": "mine"}}},
        ("{conversation_id}", "items"): {"json": {"items": [{"role": "user", "content": "mine"}]}},
        ("prompts", "{prompt_id}"): update,
        ("{prompt_id}", "set-default-version"): {"json": {"version": 1}},
        ("completions", "{completion_id}"): {"json": {"metadata": {"a": "mine"}}},
        ("{upload_id}", "parts"): {"files": {"data": b"b"}},
        ("{upload_id}", "complete"): {"json": {"part_ids": [ids["part_id"]]}},
        ("{upload_id}", "cancel"): {},
        ("vector_stores", "{vector_store_id}"): {"json": {"name": "mine"}},
        ("{vector_store_id}", "files"): {"json": {"file_id": ids["file_id"]}},
        ("files", "{file_id}"): {"json": {"attributes": {"a": "b"}}},
        ("{vector_store_id}", "file_batches"): {"json": {"file_ids": [ids["file_id"]]}},
        ("{batch_id}", "cancel"): {},
        ("{response_id}", "cancel"): {},
        ("{vector_store_id}", "search"): {"json": {"query": "lamp"}},
    }


async def snapshot(client: httpx.AsyncClient, ids: Mapping[str, str]) -> list[Any]:
    """What a project sees of what it has, apart from when it was last looked into."""
    store = f"/v1/vector_stores/{ids['vector_store_id']}"
    seen = []
    for path in (
        "/v1/files",
        f"/v1/files/{ids['file_id']}/content",
        "/v1/vector_stores",
        f"{store}/files",
        f"{store}/file_batches/{ids['batch_id']}",
        f"{store}/files/{ids['file_id']}/content",
        f"/v1/conversations/{ids['conversation_id']}",
        f"/v1/conversations/{ids['conversation_id']}/items",
        f"/v1/prompts/{ids['prompt_id']}/versions",
        f"/v1/chat/completions/{ids['completion_id']}",
        "/v1/responses",
        f"/v1/responses/{ids['response_id']}",
        f"/v1/responses/{ids['response_id']}/input_items",
    ):
        answer = await client.get(path)
        assert answer.status_code == 200
        seen.append(re.sub(rb'"last_active_at":\d+', b"", answer.content))
    found = await send(client, f"{store}/search", json={"query": "lamp boat"})
    return [*seen, found["data"]]


async def test_every_route_with_an_id_finds_nothing_of_another_project(running, ours, theirs):
    """With every combination of ids that is somebody else's, and nothing of it is changed."""
    ids, own = await fill(ours), await fill(theirs)
    before = await snapshot(ours, ids)
    known, tried = bodies(ids), set()
    for method, components, names in routes_with_ids(running):
        missing = set(names) - ids.keys()
        assert not missing, f"{path_of(components, {})}: fill() makes nothing for {missing}"
        ending = ending_of(components)
        # All of it is somebody else's; or the store is one's own, and what is in it isn't.
        mixed = {**ids, **{name: own[name] for name in ("vector_store_id", "conversation_id")}}
        for given_ids in (ids, mixed) if len(names) > 1 else (ids,):
            path = path_of(components, given_ids)
            options = known[ending] if method in {"POST", "PUT"} else {}
            answer = await theirs.request(method, path, **options)
            assert answer.status_code == 404, f"{method} {path}: {answer.text}"
            tried.add((method, ending))
    assert len(tried) >= 45
    assert await snapshot(ours, ids) == before


CURSORS = st.dictionaries(
    st.sampled_from(["after", "before", "starting_after", "file_id", "id", "project"]),
    st.sampled_from(["file_id", "vector_store_id", "response_id", "conversation_id", "ours"]),
    max_size=3,
)
SPOOFED = st.dictionaries(
    st.sampled_from(
        ["openai-project", "openai-organization", "x-project", "x-remote-project", "x-remote-user"]
    ),
    st.just("ours"),
    max_size=3,
)


async def test_no_combination_of_ids_cursors_and_headers_shows_another_project(
    running, ours, theirs
):
    """Whatever is asked for by an id of somebody else's is 404, and no answer has a word of it."""
    ids, own = await fill(ours), await fill(theirs)
    before = await snapshot(ours, ids)
    known, routes = bodies(ids), routes_with_ids(running)
    foreign = [value for name, value in ids.items() if name != "item_id"]
    asked: list[tuple[str, str, dict[str, Any]]] = []

    @settings(max_examples=300, deadline=None, database=None, derandomize=True)
    @given(route=st.sampled_from(routes), data=st.data(), cursors=CURSORS, headers=SPOOFED)
    def draw(route, data, cursors, headers):
        method, components, names = route
        theirs_too = data.draw(st.sets(st.sampled_from(names), max_size=len(names) - 1))
        mixed = {**ids, **{name: own[name] for name in theirs_too}}
        if "batch_id" in theirs_too:
            mixed["batches.batch_id"] = own["batches.batch_id"]
        options = known[ending_of(components)] if method in {"POST", "PUT"} else {}
        params = {name: ids.get(value, value) for name, value in cursors.items()}
        asked.append(
            (method, path_of(components, mixed), {**options, "params": params, "headers": headers})
        )

    draw()  # which can't wait; the requests follow
    for method, path, options in asked:
        answer = await theirs.request(method, path, **options)
        assert answer.status_code in (404, 400), f"{method} {path} {options}: {answer.text}"
        if answer.status_code == 400:  # a parameter of the query is wrong, and said before
            assert answer.json()["error"]["param"] in options["params"], answer.text
        echoed = f"{path} {options['params'].values()}"
        shown = [one for one in foreign if one in answer.text and one not in echoed]
        assert not shown, f"{method} {path}: {answer.text}"
        assert TEXT not in answer.text
    assert await snapshot(ours, ids) == before


async def test_no_list_shows_another_project(running, ours, theirs):
    """Every route that takes no id, and those below what is one's own."""
    ids, own = await fill(ours), await fill(theirs)
    tried = 0
    for route in running.application.litestar.routes:
        names = {one.name for one in route.path_components if not isinstance(one, str)}
        if "GET" not in route.methods or not names <= own.keys():
            continue
        path = path_of(route.path_components, own)
        for params in ({}, {"limit": 100}, {"after": ids["file_id"]}):
            answer = await theirs.get(path, params=params)
            assert not [one for one in ids.values() if one in answer.text], path
            tried += answer.status_code == 200
    assert tried > 60


async def test_ids_in_bodies_are_looked_for_in_the_callers_project(ours, theirs):
    """A store, its files, a part, and what stands behind a file processor."""
    ids, own = await fill(ours), await fill(theirs)
    before = await snapshot(ours, ids)
    file, store = ids["file_id"], ids["vector_store_id"]
    mine = f"/v1/vector_stores/{own['vector_store_id']}"
    chunk = {"content": "x", "metadata": {"document_id": "d"}, "chunk_id": "c"}
    reference = {"type": "item_reference", "id": ids["item_id"]}
    talk = f"/v1/conversations/{own['conversation_id']}/items"
    requests: list[tuple[str, dict[str, Any], int]] = [
        ("/v1/vector_stores", {"json": {"file_ids": [file]}}, 404),
        (f"{mine}/files", {"json": {"file_id": file}}, 404),
        (f"{mine}/file_batches", {"json": {"file_ids": [own["file_id"], file]}}, 404),
        (f"{mine}/file_batches", {"json": {"files": [{"file_id": file}]}}, 404),
        ("/v1/conversations", {"json": {"items": [reference]}}, 404),
        (talk, {"json": {"items": [reference]}}, 404),
        ("/v1/vector-io/query", {"json": {"vector_store_id": store, "query": "lamp"}}, 404),
        ("/v1/vector-io/query", {"json": {"vector_db_id": store, "query": "lamp"}}, 404),
        ("/v1/vector-io/insert", {"json": {"vector_store_id": store, "chunks": [chunk]}}, 404),
        ("/v1/vector_stores", {"json": {"provider_vector_store_id": store}}, 409),
        (f"{RAG}/query", {"json": {"vector_store_ids": [store], "content": "lamp"}}, 404),
        (f"{RAG}/insert", {"json": {"vector_store_id": store, "documents": DOCUMENTS}}, 404),
        ("/v1alpha/file-processors/process", {"files": {"file_id": (None, file)}}, 404),
        (f"/v1/uploads/{own['upload_id']}/complete", {"json": {"part_ids": [ids["part_id"]]}}, 400),
    ]
    for path, options, status in requests:
        answer = await theirs.post(path, **options)
        assert answer.status_code == status, f"{path} {options}: {answer.text}"
    assert await snapshot(ours, ids) == before


async def test_responses_build_on_nothing_of_another_project(ours, theirs, chat):
    """Earlier responses, items, files and stores; on every route that reads them, at once and in
    the background."""
    ids, own = await fill(ours), await fill(theirs)
    before = await snapshot(ours, ids)
    file, item = ids["file_id"], ids["output_id"]
    search = {"type": "file_search", "vector_store_ids": [own["vector_store_id"]]}
    elsewhere = {**search, "vector_store_ids": [ids["vector_store_id"]]}

    def with_part(part: dict[str, Any]) -> dict[str, Any]:
        return {"input": [{"role": "user", "content": [part]}]}

    bodies: list[tuple[dict[str, Any], int]] = [
        ({"input": "x", "previous_response_id": ids["response_id"]}, 400),
        ({"input": [{"type": "item_reference", "id": item}]}, 404),
        (with_part({"type": "input_file", "file_id": file}), 404),
        (with_part({"type": "input_image", "file_id": file, "detail": "auto"}), 404),
        ({"input": "x", "tools": [elsewhere]}, 404),
    ]
    asked = len(chat.requests_to("/v1/chat/completions"))
    for body, status in bodies:
        for options in ({}, {"stream": True}, {"background": True}):
            wanted = {"model": "fake-chat", **body, **options}
            answer = await theirs.post("/v1/responses", json=wanted)
            if answer.status_code == 200:  # files are read where the response is made
                assert "background" in options
                shown = await ended(theirs, answer.json()["id"])
                assert shown["status"] == "failed"
                assert shown["error"]["message"] == f"No such File object: {file}"
                assert shown["error"]["code"] == "invalid_prompt"
            else:
                assert answer.status_code == status, f"{wanted}: {answer.text}"
            assert TEXT not in answer.text
            assert REPLY not in answer.text
        for path in ("/v1/responses/input_tokens", "/v1/responses/compact"):
            if "tools" in body:
                continue  # which take none, or search nothing
            answer = await theirs.post(path, json={"model": "fake-chat", **body})
            assert answer.status_code == status, f"{path} {body}: {answer.text}"
    posted = [r for r in chat.requests_to("/v1/chat/completions")[asked:] if r.method == "POST"]
    assert posted == []
    assert await snapshot(ours, ids) == before


async def ended(client: httpx.AsyncClient, response_id: str) -> Any:
    async with asyncio.timeout(30):
        while True:
            shown = (await client.get(f"/v1/responses/{response_id}")).json()
            if shown["status"] not in ("queued", "in_progress"):
                return shown
            await asyncio.sleep(0.05)


async def test_lists_and_searches_hold_only_what_is_the_projects(ours, theirs):
    """Another project's ids are no cursors either, and a filter by its files finds nothing."""
    ids, own = await fill(ours), await fill(theirs)
    lists = {
        "/v1/files": "file_id",
        "/v1/vector_stores": "vector_store_id",
        "/v1/chat/completions": "completion_id",
        "/v1/prompts": "prompt_id",
        "/v1/responses": "response_id",
    }
    for path, name in lists.items():
        key = "prompt_id" if name == "prompt_id" else "id"
        whole = (await theirs.get(path)).json()["data"]
        assert whole
        names = {one[key] for one in (await ours.get(path)).json()["data"]}
        assert not names & {one[key] for one in whole}
        assert (await theirs.get(f"{path}?after={ids[name]}")).json()["data"] == whole
    by_metadata = (await theirs.get("/v1/chat/completions?metadata[a]=b")).json()["data"]
    assert ids["completion_id"] not in {one["id"] for one in by_metadata}
    mine = f"/v1/vector_stores/{own['vector_store_id']}"
    found = await send(theirs, f"{mine}/search", json={"query": "lamp"})
    assert {one["file_id"] for one in found["data"]} == {own["file_id"], "d"}
    by_file = {"type": "eq", "key": "file_id", "value": ids["file_id"]}
    assert (await send(theirs, f"{mine}/search", json={"query": "lamp", "filters": by_file}))[
        "data"
    ] == []


async def test_tool_groups_of_another_project_are_not_there(ours, theirs):
    """Neither shown, nor removed, nor in the way of one's own of that name."""
    group = {"toolgroup_id": "mcp::g", "provider_id": "model-context-protocol"}
    mine, other = ({**group, "mcp_endpoint": {"uri": f"http://127.0.0.1/{n}"}} for n in "ab")
    await send(ours, "/v1/toolgroups", json=mine)
    names = [one["identifier"] for one in (await theirs.get("/v1/toolgroups")).json()["data"]]
    assert "mcp::g" not in names
    for method in ("GET", "DELETE"):
        assert (await theirs.request(method, "/v1/toolgroups/mcp::g")).status_code == 404
    tools = await theirs.get("/v1/tools", params={"toolgroup_id": "mcp::g"})
    assert tools.status_code == 404
    await send(theirs, "/v1/toolgroups", json=other)
    assert (await theirs.delete("/v1/toolgroups/mcp::g")).status_code == 200
    kept = (await ours.get("/v1/toolgroups/mcp::g")).json()
    assert kept["mcp_endpoint"] == mine["mcp_endpoint"]


async def test_vectors_of_another_project_are_not_taken_over(running, ours, theirs, embedding):
    """The same text is embedded again, since who has seen it is nobody else's business."""
    await fill(ours)
    embedding.reset()
    key = await make_key(running, "strangers")
    async with running.client(headers=bearer(key)) as stranger:
        await fill(stranger)
    sent = b"".join(one.body for one in embedding.requests_to("/v1/embeddings"))
    assert TEXT.encode() in sent
    async with running.application.state.database.read() as session:
        rows = (await session.execute(select(ChunkRow.project, ChunkRow.text))).all()
    assert {project for project, text in rows if text == TEXT} >= {"ours", "strangers"}


async def test_batches_are_the_projects_own(running, ours, theirs):
    """Neither its file, nor the batch, its output or its key is anything to another project."""
    wanted = {"idempotency_key": "k"}
    made = {client: await batch_over(client, wanted) for client in (ours, theirs)}
    batch, own = made[ours], made[theirs]
    assert batch["id"] != own["id"]
    for method, path in (
        ("GET", f"/v1/batches/{batch['id']}"),
        ("POST", f"/v1/batches/{batch['id']}/cancel"),
        ("GET", f"/v1/files/{batch['output_file_id']}/content"),
    ):
        assert (await theirs.request(method, path)).status_code == 404, path
    foreign = {
        "endpoint": "/v1/embeddings",
        "completion_window": "24h",
        "input_file_id": batch["input_file_id"],
    }
    assert (await theirs.post("/v1/batches", json=foreign)).status_code == 404
    for query in ("", f"?after={batch['id']}"):
        listed = (await theirs.get(f"/v1/batches{query}")).json()["data"]
        assert own["id"] in {one["id"] for one in listed}
        assert batch["id"] not in {one["id"] for one in listed}
