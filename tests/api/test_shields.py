"""LlamaStack's shields over HTTP, under both profiles, and the judgement of several at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from gateway.errors import InvalidRequest, UpstreamUnavailable
from gateway.identity.principal import Principal
from gateway.observability.activity import Activity
from gateway.shields.service import ShieldService, Violation
from tests.support.detectors import DetectorServer
from tests.support.expect import refused
from tests.support.inprocess import InProcessGateway
from tests.support.upstream import FakeVllm, faults

pytestmark = pytest.mark.anyio

GUARD = "meta-llama/Llama-Guard-3-8B"
UNKNOWN = {"openai": 404, "llamastack": 400}
ME = Principal()
PATH = "/v1/chat/completions"


def verdict(body: dict[str, Any]) -> str:
    return "unsafe\nS1,S9" if "bomb" in body["messages"][-1]["content"] else "safe"


def said(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


BAD = said("user", "How do I build a bomb?")
GOOD = said("user", "How do I build a boat?")


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[FakeVllm]:
    async with FakeVllm([GUARD, "fake-chat"], reply=verdict) as started:
        yield started


@pytest.fixture(scope="module")
def detectors():
    with DetectorServer({"idiot": "hap"}) as started:
        yield started


@pytest.fixture(scope="module", params=["openai", "llamastack"])
async def gateway(request, server, detectors, tmp_path_factory) -> AsyncIterator[InProcessGateway]:
    async with InProcessGateway(
        discover=[server.url],
        models=[GUARD],
        server={"profile": request.param},
        moderation={"detectors": [{"name": "words", "url": detectors.url}]},
        data_dir=str(tmp_path_factory.mktemp("shields")),
    ) as started:
        yield started


@pytest.fixture
async def http(gateway, server, detectors) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway.client() as client:
        yield client
    server.reset()
    detectors.fail_with, detectors.seconds = None, 0


async def run(http: httpx.AsyncClient, shield: str, *messages: dict[str, Any]) -> Any:
    body = {"shield_id": shield, "messages": messages, "params": {}}
    answer = await http.post("/v1/safety/run-shield", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["violation"]


async def test_every_guard_is_a_shield(http):
    """By its own name, configured or discovered; a chat model is none."""
    listed = (await http.get("/v1/shields")).json()["data"]
    assert listed[:2] == [
        {
            "identifier": "words",
            "provider_resource_id": "words",
            "provider_id": "trustyai_fms",
            "type": "shield",
            "params": {},
        },
        {
            "identifier": GUARD,
            "provider_resource_id": GUARD,
            "provider_id": "llama-guard",
            "type": "shield",
            "params": {},
        },
    ]
    assert "fake-chat" not in {one["identifier"] for one in listed}
    for one in listed[:2]:
        assert (await http.get(f"/v1/shields/{one['identifier']}")).json() == one


async def test_a_shield_runs(http):
    """No violation is null, one has what LlamaStack's Llama Guard says."""
    assert await run(http, GUARD, GOOD) is None
    assert await run(http, GUARD, BAD) == {
        "violation_level": "error",
        "user_message": "I can't answer that. Can I help with something else?",
        "metadata": {"violation_type": "S1,S9"},
    }
    violation = await run(http, "words", said("user", "You idiot"))
    assert violation["metadata"] == {"violation_type": "hap"}


async def test_the_last_message_is_judged_in_its_context(http, server):
    """A user's or an assistant's."""
    assert await run(http, GUARD, BAD, said("assistant", "No."), GOOD) is None
    assert await run(http, GUARD, GOOD, said("assistant", "Here is a bomb.")) is not None
    body = json.loads(server.requests_to(PATH)[-1].body)
    assert body["messages"] == [GOOD, said("assistant", "Here is a bomb.")]


async def test_a_shield_is_registered_found_and_removed(http):
    """Under an id with slashes too; its params are kept."""
    wanted = {
        "shield_id": "team/content_safety",
        "provider_shield_id": f"vllm/{GUARD}",
        "provider_id": "llama-guard",
        "params": {"excluded": ["S6"]},
    }
    answer = await http.post("/v1/shields", json=wanted)
    assert answer.status_code == 200, answer.text
    shield = answer.json()
    assert shield == {
        "identifier": "team/content_safety",
        "provider_resource_id": f"vllm/{GUARD}",
        "provider_id": "llama-guard",
        "type": "shield",
        "params": {"excluded": ["S6"]},
    }
    assert (await http.get("/v1/shields/team/content_safety")).json() == shield
    assert (await http.get("/v1/shields/team%2Fcontent_safety")).json() == shield
    assert shield in (await http.get("/v1/shields")).json()["data"]
    assert await run(http, "team/content_safety", BAD) is not None
    gone = await http.delete("/v1/shields/team/content_safety")
    assert (gone.status_code, gone.content) == (204, b"")
    assert (await http.get("/v1/shields/team/content_safety")).status_code in (400, 404)


async def test_registering_again_replaces(http):
    """Several at once, too."""
    for guard, provider in ((GUARD, "llama-guard"), ("words", "trustyai_fms")):
        body = {"shield_id": "mine", "provider_shield_id": guard}
        answers = await asyncio.gather(*(http.post("/v1/shields", json=body) for _ in range(4)))
        assert {one.status_code for one in answers} == {200}
        found = (await http.get("/v1/shields/mine")).json()
        assert (found["provider_resource_id"], found["provider_id"]) == (guard, provider)
    await http.delete("/v1/shields/mine")


async def test_a_guards_own_name_stays_its_own(http):
    """Registering it as itself changes nothing, giving it away or removing it is refused."""
    for body in ({"shield_id": "words"}, {"shield_id": "words", "provider_shield_id": "words"}):
        assert (await http.post("/v1/shields", json=body)).json()["provider_id"] == "trustyai_fms"
    given_away = {"shield_id": "words", "provider_shield_id": GUARD}
    refused(await http.post("/v1/shields", json=given_away), 409)
    refused(await http.delete("/v1/shields/words"), 409)


async def test_an_unknown_shield(http, gateway):
    """OpenAI's way is 404, LlamaStack's 400."""
    status = UNKNOWN[gateway.settings.server.profile]
    body = {"shield_id": "nope", "messages": [GOOD]}
    assert refused(await http.post("/v1/safety/run-shield", json=body), status)["param"]
    refused(await http.get("/v1/shields/nope"), status)
    refused(await http.delete("/v1/shields/nope"), status)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/shields", {}, "shield_id"),
        ("/v1/shields", {"shield_id": ""}, "shield_id"),
        ("/v1/shields", {"shield_id": "a" * 81, "provider_shield_id": "words"}, "shield_id"),
        ("/v1/shields", {"shield_id": "a\x00", "provider_shield_id": "words"}, "shield_id"),
        ("/v1/shields", {"shield_id": "a"}, "provider_shield_id"),
        ("/v1/shields", {"shield_id": "a", "provider_shield_id": "nope"}, "provider_shield_id"),
        (
            "/v1/shields",
            {"shield_id": "a", "provider_shield_id": "fake-chat"},
            "provider_shield_id",
        ),
        (
            "/v1/shields",
            {"shield_id": "a", "provider_shield_id": "words", "params": {"a": "b" * 20_000}},
            "params",
        ),
        ("/v1/safety/run-shield", {"messages": [GOOD]}, "shield_id"),
        ("/v1/safety/run-shield", {"shield_id": "words"}, "messages"),
        ("/v1/safety/run-shield", {"shield_id": "words", "messages": []}, "messages"),
        (
            "/v1/safety/run-shield",
            {"shield_id": "words", "messages": [said("user", 7)]},
            "messages[0].content",
        ),
        (
            "/v1/safety/run-shield",
            {
                "shield_id": "words",
                "messages": [
                    said("user", [{"type": "image_url", "image_url": {"url": "https://a/b"}}])
                ],
            },
            "messages",
        ),
    ],
)
async def test_what_is_wrong_is_named(http, path, body, param):
    """Whatever the profile."""
    assert refused(await http.post(path, json=body), 400)["param"] == param


async def test_a_message_without_text_is_not_judged(http, server):
    """Such as an assistant's that only calls tools."""
    before = len(server.requests_to(PATH))
    assert await run(http, GUARD, BAD, said("assistant", None)) is None
    assert len(server.requests_to(PATH)) == before


@pytest.mark.one_process
async def test_registered_shields_outlive_the_process(server, tmp_path):
    """They are in the database."""
    options = {"discover": [server.url], "models": [GUARD], "data_dir": str(tmp_path)}
    async with InProcessGateway(**options) as first, first.client() as http:
        body = {"shield_id": "mine", "provider_shield_id": GUARD}
        assert (await http.post("/v1/shields", json=body)).status_code == 200
    async with InProcessGateway(**options) as second, second.client() as http:
        assert await run(http, "mine", BAD) is not None


# ------------------------------------------------------------------ what Responses' guardrails ask


@pytest.fixture
def service(gateway) -> ShieldService:
    return gateway.application.agentic.shields


@pytest.fixture
def activity(gateway) -> Activity:
    return Activity(gateway.application.telemetry, None, 0, 0)


async def test_one_violation_of_several_shields_is_enough(http, service, activity):
    """It says whose it is, and of what."""
    shields = ["words", GUARD, "words"]
    assert await service.violation(ME, activity, shields, [BAD]) == Violation(
        shield_id=GUARD,
        user_message="I can't answer that. Can I help with something else?",
        categories=["S1", "S9"],
    )
    assert await service.violation(ME, activity, shields, [GOOD]) is None
    assert await service.violation(ME, activity, [], [BAD]) is None


@pytest.mark.alone
async def test_shields_judge_at_once_and_the_first_no_ends_the_others(
    http, service, activity, server, detectors
):
    """Nobody waits for a slow one then."""
    server.behave(PATH, faults.hangs_before_head(), times=1)
    violation = await asyncio.wait_for(
        service.violation(ME, activity, [GUARD, "words"], [said("user", "You idiot")]), 5
    )
    assert violation is not None
    assert violation.shield_id == "words"


async def test_an_unknown_shield_is_the_callers_mistake(http, service, activity):
    """In the words of the parameter that named it; and so are too many."""
    for shields in (["words", "nope"], [f"s{n}" for n in range(17)]):
        with pytest.raises(InvalidRequest) as raised:
            await service.violation(ME, activity, shields, [BAD])
        assert raised.value.param == "guardrails"


async def test_what_one_shield_could_not_judge_is_an_error(http, service, activity, detectors):
    """Even though the others say yes."""
    detectors.fail_with = 503
    with pytest.raises(UpstreamUnavailable):
        await service.violation(ME, activity, [GUARD, "words"], [GOOD])
