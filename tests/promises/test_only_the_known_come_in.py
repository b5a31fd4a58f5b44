"""Where an identity is asked for, nobody gets past the edge without one, and nobody further than
their key reaches."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest

from gateway.audit.entry import row_of_command
from gateway.contract import openapi_document
from gateway.errors import UpstreamUnavailable
from gateway.identity.api_keys import ApiKeyService
from gateway.identity.key_repository import ApiKeyRepository
from gateway.identity.scopes import ORDINARY, PUBLIC, SCOPES, scope_of_path
from gateway.settings import ApiKeySettings
from tests.support.inprocess import InProcessGateway
from tests.support.keys import bearer, make_key

pytestmark = pytest.mark.anyio

CHAT = {"model": "fake-chat", "messages": [{"role": "user", "content": "Hello"}]}
WRONG = "sk-us-" + "x" * 43


@pytest.fixture
async def gateway(upstream, tmp_path) -> AsyncIterator[InProcessGateway]:
    async with InProcessGateway(
        discover=[upstream.url],
        models=["fake-chat"],
        data_dir=str(tmp_path),
        identity={"mode": "api_keys", "api_keys": {"cache_seconds": 0.5, "outage_seconds": 5}},
    ) as started:
        yield started


async def test_every_scope_has_a_meaning_and_opens_something(gateway):
    """The table of scopes and what settings may name are the same, and no scope is idle."""
    paths = {path for handler in gateway.application.handlers for path in handler.paths}
    assert {scope_of_path(path) for path in paths} - {None} >= set(SCOPES) - {"usage.read"}


async def test_every_route_needs_a_key(gateway, upstream):
    """Each operation of the contract is 401 without one, except those that are public."""
    document = openapi_document(gateway.application.handlers)
    asked = len(upstream.requests)
    public = set()
    async with gateway.client() as client:
        for path, operations in document["paths"].items():
            for method in operations:
                answer = await client.request(method, path.replace("{", "").replace("}", ""))
                if path in PUBLIC:
                    assert answer.status_code == 200
                    public.add(path)
                    continue
                assert answer.status_code == 401, f"{method} {path}: {answer.text}"
                assert answer.headers["www-authenticate"] == "Bearer"
                assert answer.headers["x-request-id"].startswith("req_")
    assert public == PUBLIC
    assert all(r.method == "GET" for r in upstream.requests[asked:])  # discovery's


@pytest.mark.parametrize(
    "path", ["/v1/nothing", "/", "//v1/files", "/v1/files/", "/v1/health/", "/v1/health/../files"]
)
async def test_unknown_paths_are_closed_too(gateway, path):
    """What isn't public to the letter needs a key, whatever the router would make of it."""
    async with gateway.client() as client:
        assert (await client.get(httpx.URL(gateway.root_url + path))).status_code == 401


async def test_a_refusal_has_openais_shape(gateway):
    """OpenAI's SDK raises its own error for it, and the secret isn't repeated."""
    options = {"base_url": gateway.base_url, "api_key": WRONG, "max_retries": 0}
    async with openai.AsyncOpenAI(**options) as client:
        with pytest.raises(openai.AuthenticationError) as raised:
            await client.models.list()
    assert raised.value.body == {
        "message": "Incorrect API key provided.",
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_api_key",
    }
    assert WRONG not in raised.value.response.text


async def test_messages_are_refused_in_anthropics_shape(gateway):
    """Who speaks Anthropic's API reads Anthropic's errors."""
    async with gateway.client(headers={"x-api-key": WRONG}) as client:
        answer = await client.post("/v1/messages", json={**CHAT, "max_tokens": 5})
    assert answer.status_code == 401
    assert answer.json()["type"] == "error"
    assert answer.json()["error"]["type"] == "authentication_error"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Basic dXNlcjpwYXNzd29yZA=="},
        {"authorization": f"Bearer {WRONG}"},
        {"authorization": "Bearer none"},
        {"authorization": b"Bearer \xff\xfe"},
        {"authorization": "Bearer " + "a" * 20_000},
        {"x-api-key": WRONG},
        {"x-remote-user": "root", "x-remote-project": "ours", "x-forwarded-for": "127.0.0.1"},
    ],
)
async def test_what_proves_nothing_is_refused(gateway, headers):
    """Missing, malformed, unknown and foreign credentials alike."""
    async with gateway.client(headers=headers) as client:
        answer = await client.post("/v1/chat/completions", json=CHAT)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"


async def test_two_different_keys_are_refused(gateway):
    """Nobody guesses which of the two is meant."""
    one, other = await make_key(gateway), await make_key(gateway, "theirs")
    async with gateway.client(headers={**bearer(one), "x-api-key": other.secret}) as client:
        assert (await client.get("/v1/models")).status_code == 401


async def test_a_key_opens_what_it_should(gateway, upstream):
    """As a bearer token and as Anthropic's clients send it; and it doesn't travel on."""
    key = await make_key(gateway)
    for headers in (bearer(key), {"x-api-key": key.secret}):
        async with gateway.client(headers=headers) as client:
            assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200
            answer = await client.post("/v1/messages", json={**CHAT, "max_tokens": 5})
            assert answer.status_code == 200
    for request in upstream.requests_to("/v1/chat/completions"):
        assert key.secret not in str(request.headers)
        assert "authorization" not in {name.lower() for name in request.headers}


async def test_keys_open_only_the_scopes_that_they_have(gateway):
    """Every operation is tried with a key for each scope: 403 with OpenAI's code, or through."""
    document = openapi_document(gateway.application.handlers)
    keys = {scope: await make_key(gateway, scopes=[scope]) for scope in SCOPES}
    async with gateway.client() as client:
        for path, operations in document["paths"].items():
            needed = scope_of_path(path)
            if path in PUBLIC:
                continue
            for scope in {"files", "inference", needed, "admin"}:
                method = next(iter(operations))
                answer = await client.request(method, path, headers=bearer(keys[scope]))
                if scope in (needed, "admin"):
                    assert answer.status_code not in (401, 403), f"{scope} {path}"
                else:
                    assert answer.status_code == 403, f"{scope} {path}"
                    assert answer.json()["error"]["code"] == "missing_scope"
                    assert needed in answer.json()["error"]["message"]


async def test_an_ordinary_key_has_all_but_admin(gateway):
    """The operator's routes are closed to it, and unknown URLs are 404 as ever."""
    key = await make_key(gateway)
    assert set(key.scopes) == ORDINARY
    async with gateway.client(headers=bearer(key)) as client:
        assert (await client.get("/v1/providers")).status_code == 403
        assert (await client.get("/v1/models")).status_code == 200
        unknown = await client.get("/v1/nothing")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "unknown_url")


async def until_refused(client: httpx.AsyncClient, within: float) -> float:
    started = time.monotonic()
    while (await client.get("/v1/models")).status_code != 401:
        assert time.monotonic() - started < within
        await asyncio.sleep(0.02)
    return time.monotonic() - started


@pytest.mark.alone
async def test_a_revoked_key_is_refused_within_the_cache_time(gateway):
    """Here half a second."""
    key = await make_key(gateway)
    async with gateway.client(headers=bearer(key)) as client:
        assert (await client.get("/v1/models")).status_code == 200
        await ApiKeyService(gateway.application.state.database, row_of_command).revoke(key.id)
        await until_refused(client, 3)


@pytest.mark.alone
async def test_an_expired_key_is_refused_though_it_is_remembered(gateway):
    """Its end counts, not the cache's."""
    key = await make_key(gateway, expires_in=3)
    async with gateway.client(headers=bearer(key)) as client:
        assert (await client.get("/v1/models")).status_code == 200
        await until_refused(client, 6)


@pytest.mark.alone
async def test_a_rotated_key_works_with_both_secrets_for_the_time_of_grace(gateway):
    """And the old one not a moment longer, while the new one has the same id and rights."""
    key = await make_key(gateway, scopes=["models.read"])
    service = ApiKeyService(gateway.application.state.database, row_of_command)
    rotated = await service.rotate(key.id, grace_seconds=4)
    assert rotated.id == key.id
    assert rotated.scopes == ["models.read"]
    async with (
        gateway.client(headers=bearer(key)) as old,
        gateway.client(headers=bearer(rotated)) as new,
    ):
        assert (await old.get("/v1/models")).status_code == 200
        assert (await new.get("/v1/models")).status_code == 200
        await until_refused(old, 8)
        assert (await new.get("/v1/models")).status_code == 200


async def test_a_key_rotated_without_grace_is_refused_at_once(gateway):
    """Apart from what processes remember."""
    key = await make_key(gateway)
    rotated = await ApiKeyService(gateway.application.state.database, row_of_command).rotate(
        key.prefix
    )
    async with gateway.client() as client:
        old = await client.get("/v1/models", headers=bearer(key))
        new = await client.get("/v1/models", headers=bearer(rotated))
    assert (old.status_code, new.status_code) == (401, 200)


@pytest.fixture
def reads(monkeypatch) -> dict[str, Any]:
    """Counts how often keys are looked for, and has it fail where `fails` is set."""
    find, seen = ApiKeyRepository.find, {"count": 0, "fails": False}

    async def counted(repository, digest):
        seen["count"] += 1
        if seen["fails"]:
            raise UpstreamUnavailable("away", code="database_unavailable")
        return await find(repository, digest)

    monkeypatch.setattr(ApiKeyRepository, "find", counted)
    return seen


async def test_many_requests_at_once_ask_the_database_once(gateway, reads, monkeypatch):
    """For a good key and for a bad one; and what can't be a key asks nothing."""
    prover = gateway.application.authenticator._prover
    monkeypatch.setattr(prover, "_settings", ApiKeySettings(cache_seconds=60))
    monkeypatch.setattr(prover, "refusal_seconds", 60)
    key = await make_key(gateway)
    async with gateway.client() as client:
        for token, status in ((key.secret, 200), (WRONG, 401)):
            before = reads["count"]
            answers = await asyncio.gather(
                *(client.get("/v1/models", headers=bearer(token)) for _ in range(20))
            )
            assert {answer.status_code for answer in answers} == {status}
            assert reads["count"] - before == 1
        before = reads["count"]
        await client.get("/v1/models", headers=bearer("no-key"))
        assert reads["count"] == before


@pytest.mark.alone
async def test_without_the_database_only_known_keys_come_in(gateway, reads):
    """Others get 503 and when to come again; known ones are good for the time of an outage."""
    known, unknown = await make_key(gateway), await make_key(gateway)
    async with gateway.client() as client:
        assert (await client.get("/v1/models", headers=bearer(known))).status_code == 200
        reads["fails"] = True
        answer = await client.get("/v1/models", headers=bearer(unknown))
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert answer.json()["error"]["code"] == "database_unavailable"
        await asyncio.sleep(0.7)  # past the cache's time
        assert (await client.get("/v1/models", headers=bearer(known))).status_code == 200
        await asyncio.sleep(5)  # past the outage's
        assert (await client.get("/v1/models", headers=bearer(known))).status_code == 503
        reads["fails"] = False
        assert (await client.get("/v1/models", headers=bearer(known))).status_code == 200


async def test_secrets_are_in_no_log_and_no_trace(gateway, caplog):
    """Who it was is: the project and the key's id."""
    key = await make_key(gateway, name="nightly")
    with caplog.at_level(logging.DEBUG):
        async with gateway.client(headers=bearer(key)) as client:
            await client.post("/v1/chat/completions", json=CHAT)
        async with gateway.client(headers=bearer(WRONG)) as client:
            await client.post("/v1/chat/completions", json=CHAT)
    span = await gateway.span("POST /v1/chat/completions")
    seen = caplog.text + "".join(one.to_json() for one in gateway.spans())
    assert key.secret not in seen
    assert WRONG not in seen
    known = [one for one in gateway.spans() if "enduser.id" in (one.attributes or {})]
    assert span is not None
    assert known[0].attributes["enduser.id"] == "nightly"
    assert known[0].attributes["understudy.project"] == "ours"
    assert known[0].attributes["understudy.api_key.id"] == key.id


async def test_the_use_of_a_key_is_noted(gateway):
    """To within a minute, and at the end of the process."""
    key = await make_key(gateway)
    async with gateway.client(headers=bearer(key)) as client:
        await client.get("/v1/models")
    service = ApiKeyService(gateway.application.state.database, row_of_command)
    assert (await service.list())[0].last_used_at is None
    async with gateway.application.authenticator._prover.running():
        pass
    assert abs((await service.list())[0].last_used_at - time.time()) < 60


async def test_management_stays_off_the_public_port(upstream, tmp_path):
    """Where it has a port of its own, probes and metrics are there, and need no key."""
    async with InProcessGateway(
        discover=[upstream.url],
        models=["fake-chat"],
        data_dir=str(tmp_path),
        identity={"mode": "api_keys"},
        server={"management_port": 1},
    ) as gateway:
        key = await make_key(gateway, scopes=["admin"])
        async with gateway.client(headers=bearer(key)) as client:
            for path in ("/livez", "/readyz", "/metrics"):
                assert (await client.get(path)).status_code == 404
        transport = httpx.ASGITransport(gateway.application.management)
        async with httpx.AsyncClient(transport=transport, base_url="http://m") as client:
            for path in ("/livez", "/readyz", "/metrics"):
                assert (await client.get(path)).status_code == 200
            assert (await client.get("/v1/models")).status_code == 404
