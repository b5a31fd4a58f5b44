"""Registered shields belong to a project, a detector's token stays inside, and whatever is sent to
moderations and shields is survived, on either database."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from litestar import Request

import gateway.http.router
from gateway.errors import InvalidRequest
from gateway.identity.principal import Principal
from gateway.observability.activity import Activity
from tests.promises.test_stateful_routes_survive_junk import (
    IDS,
    VALUES,
    spoiled,
    without_defects,
)
from tests.support.detectors import DetectorServer
from tests.support.expect import refused
from tests.support.inprocess import InProcessGateway
from tests.support.upstream import FakeVllm

pytestmark = pytest.mark.anyio

GUARD = "llama-guard-4-12b"
TOKEN = "detector-token-5e1f"
BAD = [{"role": "user", "content": "You idiot"}]


def principal_of(request: Request[Any, Any, Any]) -> Principal:
    return Principal(project=request.headers.get("x-project", "default"))


@pytest.fixture(scope="module")
def detectors():
    with DetectorServer({"idiot": "hap"}, token=TOKEN) as started:
        yield started


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def sections(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings of a gateway on either database."""
    if request.param == "sqlite":
        return {}
    postgres = request.getfixturevalue("postgres")
    template = request.getfixturevalue("postgres_template")
    return {"database": {"url": postgres.create_database(template)}}


@pytest.fixture(scope="module")
async def running(sections, detectors, tmp_path_factory) -> AsyncIterator[InProcessGateway]:
    words = {"name": "words", "url": detectors.url, "api_key": TOKEN}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gateway.http.router, "principal_of", principal_of)
        async with (
            FakeVllm([GUARD], reply="safe") as server,
            InProcessGateway(
                discover=[server.url],
                models=[GUARD],
                moderation={"detectors": [words], "default_model": GUARD},
                data_dir=str(tmp_path_factory.mktemp("shields")),
                **sections,
            ) as started,
        ):
            yield started


async def test_a_shield_is_seen_in_its_project_only(running):
    """Another project finds nothing by its id, and may have one of the same id."""
    service = running.application.agentic.shields
    activity = Activity(running.application.telemetry, None, 0, 0)
    async with (
        running.client(headers={"x-project": "ours"}) as ours,
        running.client(headers={"x-project": "theirs"}) as theirs,
    ):
        body = {"shield_id": "mine", "provider_shield_id": "words", "params": {"a": 1}}
        mine = (await ours.post("/v1/shields", json=body)).json()
        refused(await theirs.get("/v1/shields/mine"), 404)
        refused(await theirs.delete("/v1/shields/mine"), 404)
        run = {"shield_id": "mine", "messages": BAD}
        refused(await theirs.post("/v1/safety/run-shield", json=run), 404)
        assert mine not in (await theirs.get("/v1/shields")).json()["data"]
        with pytest.raises(InvalidRequest):
            await service.violation(Principal(project="theirs"), activity, ["mine"], BAD)
        assert await service.violation(Principal(project="ours"), activity, ["mine"], BAD)
        other = {"shield_id": "mine", "provider_shield_id": GUARD}
        assert (await theirs.post("/v1/shields", json=other)).status_code == 200
        assert (await theirs.delete("/v1/shields/mine")).status_code == 204
        assert (await ours.get("/v1/shields/mine")).json() == mine


async def test_a_detectors_token_goes_to_it_and_nowhere_else(running, detectors, caplog):
    """It is in no answer, span or log line, also where the detector refuses it."""
    async with running.client() as http:
        answers = [await http.post("/v1/moderations", json={"input": "idiot", "model": "words"})]
        assert answers[0].json()["results"][0]["flagged"]
        detectors.token = "another"
        answers.append(await http.post("/v1/moderations", json={"input": "a", "model": "words"}))
        assert refused(answers[1], 502)["message"].endswith("refuses the gateway's credentials.")
        detectors.token = TOKEN
        answers += [await http.get(f"/v1/{path}") for path in ("shields", "providers", "models")]
    assert detectors.requests[-1].headers["authorization"] == f"Bearer {TOKEN}"
    assert not any(TOKEN in answer.text for answer in answers)
    assert not any(TOKEN in span.to_json() for span in running.spans())
    assert TOKEN not in caplog.text


def bodies() -> dict[str, Any]:
    image = {"type": "image_url", "image_url": {"url": "https://a/b.png"}}
    parts = [{"type": "text", "text": "a"}, image]
    return {
        "/v1/moderations": {"input": parts, "model": GUARD},
        "/v1/openai/v1/moderations": {"input": ["a", "b"], "model": "words"},
        "/v1/shields": {
            "shield_id": "junk",
            "provider_shield_id": "words",
            "provider_id": "p",
            "params": {"a": ["b", 1], "c": {"d": 1.5}},
        },
        "/v1/safety/run-shield": {
            "shield_id": GUARD,
            "messages": [
                {"role": "user", "content": parts},
                {"role": "assistant", "content": "b"},
                {"role": "user", "content": parts},
            ],
            "params": {"a": 1},
        },
    }


@pytest.mark.parametrize("junk", VALUES)
async def test_no_value_of_a_body_is_a_fault_of_the_gateway(running, junk):
    """Each value of each body in turn is what no caller should send; so is the last message."""
    async with running.client() as http:
        for path, body in bodies().items():
            tried = spoiled(body, VALUES[junk])
            if "messages" in body:
                tried += spoiled({**body, "messages": body["messages"][-1:]}, VALUES[junk])
            for place, content in tried:
                answer = await http.post(
                    path, content=content, headers={"content-type": "application/json"}
                )
                without_defects(answer, f"{path} {place} = {junk}")
        listed = await http.get("/v1/shields")
        assert listed.status_code == 200
        json.loads(listed.content)


async def test_no_id_is_a_fault_of_the_gateway(running):
    """Ids that no database can look for are ids of nothing."""
    async with running.client() as http:
        for junk in [*IDS, "a/../b"]:
            for method in ("GET", "DELETE"):
                answer: httpx.Response = await http.request(method, f"/v1/shields/{junk}")
                without_defects(answer, f"{method} {junk[:50]}")
                assert answer.status_code >= 400
