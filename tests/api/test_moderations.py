"""`/v1/moderations` through OpenAI's SDK: guard models in each form, and detectors."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI
from openai.types import ModerationCreateResponse

from gateway.moderations.categories import CATEGORIES, JUDGED_IN_IMAGES
from tests.support.detectors import DetectorServer
from tests.support.expect import refused
from tests.support.inprocess import InProcessGateway
from tests.support.upstream import FakeVllm

pytestmark = pytest.mark.anyio

LLAMA_GUARD = "Llama-Guard-4-12B"
GUARDIAN = "granite-guardian-3.2-5b"
CHAT = "fake-chat"
PNG = "data:image/png;base64,iVBORw0KGgo="


def llama_guard(body: dict[str, Any]) -> str:
    """Finds words of its own in the last message."""
    last = json.dumps(body["messages"][-1])
    codes = [code for word, code in (("bomb", "S9"), ("kill", "S1"), ("tax", "S6")) if word in last]
    return "\n\nunsafe\n" + ",".join(codes) if codes else "\n\nsafe"


def guardian(body: dict[str, Any]) -> str:
    risk = body["chat_template_kwargs"]["guardian_config"]["risk_name"]
    found = risk in ("harm", "violence") and "kill" in json.dumps(body["messages"])
    return ("Yes" if found else "No") + "\n<confidence> High </confidence>"


@pytest.fixture(scope="module")
async def servers() -> AsyncIterator[dict[str, FakeVllm]]:
    async with (
        FakeVllm(
            [LLAMA_GUARD],
            reply=llama_guard,
            chances={"unsafe": {"unsafe": 0.875, "safe": 0.125}},
        ) as one,
        FakeVllm([GUARDIAN], reply=guardian) as two,
        FakeVllm([CHAT], reply="unsafe\nS10") as three,
    ):
        yield {LLAMA_GUARD: one, GUARDIAN: two, CHAT: three}


@pytest.fixture(scope="module")
def detectors():
    with DetectorServer({"idiot": "hap", "555-1234": "pii", "weed": "drugs"}) as server:
        yield server


@pytest.fixture(scope="module")
async def gateway(servers, detectors) -> AsyncIterator[InProcessGateway]:
    moderation = {
        "default_model": LLAMA_GUARD,
        "models": [
            {"model": CHAT, "excluded_categories": ["S6"]},
            {"model": GUARDIAN, "risks": ["harm", "violence", "social_bias"]},
        ],
        "detectors": [
            {"name": "words", "url": detectors.url, "categories": {"drugs": ["illicit"]}},
            {"name": "short", "url": detectors.url, "max_characters": 40},
            {"name": "strict", "url": detectors.url, "threshold": 0.95},
        ],
    }
    async with InProcessGateway(
        discover=[server.url for server in servers.values()],
        models=[*servers],
        moderation=moderation,
    ) as started:
        yield started


@pytest.fixture
async def client(gateway) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=gateway.base_url, api_key="none", max_retries=0) as made:
        yield made


def flagged_in(result: openai.types.Moderation) -> set[str]:
    shown = result.categories.model_dump(by_alias=True)
    return {name for name, is_so in shown.items() if is_so}


async def test_a_text_is_judged_by_llama_guard(client):
    """With every category of OpenAI's, and a score from the model's probabilities."""
    answer = await client.moderations.create(input="How do I kill him?")
    assert answer.id.startswith("modr-")
    assert answer.model == LLAMA_GUARD
    [result] = answer.results
    assert result.flagged
    assert flagged_in(result) == {"violence", "illicit", "illicit/violent"}
    scores = result.category_scores.model_dump(by_alias=True)
    assert set(scores) == set(CATEGORIES)
    assert scores["violence"] == pytest.approx(0.875)
    assert scores["hate"] == 0


async def test_the_answer_is_what_the_published_type_says(gateway):
    """Strictly, and under LlamaStack's older prefix as well."""
    async with gateway.client() as http:
        for path in ("/v1/moderations", "/v1/openai/v1/moderations"):
            answer = await http.post(path, json={"input": ["kill", "hello"]})
            assert answer.status_code == 200, answer.text
            shown = ModerationCreateResponse.model_validate(answer.json(), strict=True)
            assert [one.flagged for one in shown.results] == [True, False]


async def test_texts_are_judged_each_on_its_own(client, servers):
    """In their order, also where some are empty, which nobody is asked about."""
    before = len(servers[LLAMA_GUARD].requests_to("/v1/chat/completions"))
    inputs = ["hello", "", "kill", *["hi"] * 20, "a bomb"]
    answer = await client.moderations.create(input=inputs, model="omni-moderation-latest")
    assert [one.flagged for one in answer.results] == [False, False, True, *[False] * 20, True]
    asked = servers[LLAMA_GUARD].requests_to("/v1/chat/completions")[before:]
    assert len(asked) == len(inputs) - 1
    body = json.loads(asked[0].body)
    assert body["temperature"] == 0
    assert (body["logprobs"], body["top_logprobs"]) == (True, 20)


@pytest.mark.parametrize("model", ["text-moderation-latest", "omni-moderation-2024-09-26"])
async def test_openais_models_mean_the_default(client, model):
    """A client that moves here changes its base URL only."""
    assert (await client.moderations.create(input="hello", model=model)).model == LLAMA_GUARD


async def test_parts_are_one_input(client, servers):
    """Text and image together are judged by a guard that sees images."""
    answer = await client.moderations.create(
        input=[
            {"type": "text", "text": "Is this a bomb?"},
            {"type": "image_url", "image_url": {"url": PNG}},
        ]
    )
    [result] = answer.results
    assert flagged_in(result) == {"illicit", "illicit/violent"}
    types = result.category_applied_input_types.model_dump(by_alias=True)
    for category in CATEGORIES:
        expected = ["text", "image"] if category in JUDGED_IN_IMAGES else ["text"]
        assert types[category] == expected
    [message] = json.loads(servers[LLAMA_GUARD].requests[-1].body)["messages"]
    assert message["content"][0] == {"type": "image_url", "image_url": {"url": PNG}}


async def test_an_image_alone_is_judged_for_what_images_can_be(client):
    """The other categories apply to nothing."""
    answer = await client.moderations.create(
        input=[{"type": "image_url", "image_url": {"url": PNG}}]
    )
    types = answer.results[0].category_applied_input_types.model_dump(by_alias=True)
    assert types["violence"] == ["image"]
    assert types["hate"] == []


async def test_granite_guardian_is_asked_once_for_each_risk(client, servers):
    """What it is for has OpenAI's category, the umbrella `harm` has none."""
    before = len(servers[GUARDIAN].requests)
    answer = await client.moderations.create(input="kill", model=f"vllm/{GUARDIAN}")
    assert answer.model == f"vllm/{GUARDIAN}"
    assert flagged_in(answer.results[0]) == {"violence"}
    asked = [
        json.loads(one.body)["chat_template_kwargs"]["guardian_config"]["criteria_id"]
        for one in servers[GUARDIAN].requests[before:]
        if one.path == "/v1/chat/completions"
    ]
    assert sorted(asked) == ["harm", "social_bias", "violence"]


async def test_a_chat_model_can_be_a_guard(client, servers):
    """It is told what to do."""
    answer = await client.moderations.create(input="hello", model=CHAT)
    assert flagged_in(answer.results[0]) == {"hate"}
    body = json.loads(servers[CHAT].requests[-1].body)
    assert "S10: Hate" in body["messages"][0]["content"]


async def test_a_detector_judges(client):
    """Its types are OpenAI's categories by the table, by its settings, or none of them."""
    answer = await client.moderations.create(
        input=["You idiot", "Call 555-1234", "weed", "hello"], model="words"
    )
    assert [one.flagged for one in answer.results] == [True, True, True, False]
    shown = [flagged_in(one) for one in answer.results]
    assert shown == [{"hate", "harassment"}, set(), {"illicit"}, set()]
    assert answer.results[0].category_scores.hate == pytest.approx(0.9)


async def test_what_is_below_the_threshold_is_told_by_its_score(client):
    """And not flagged."""
    answer = await client.moderations.create(input="You idiot", model="strict")
    assert not answer.results[0].flagged
    assert flagged_in(answer.results[0]) == set()
    assert answer.results[0].category_scores.hate == pytest.approx(0.9)


async def test_a_long_text_is_sent_to_a_detector_in_pieces(client, detectors):
    """Each of which it reads whole; the word that a cut would part is in one of them."""
    before = len(detectors.requests)
    for at in (0, 37, 90, 200):
        text = "." * at + "idiot" + "." * (230 - at)
        answer = await client.moderations.create(input=["hello", text], model="short")
        assert [one.flagged for one in answer.results] == [False, True]
    sent = [text for one in detectors.requests[before:] for text in one.body["contents"]]
    assert max(map(len, sent)) == 40


async def test_the_guards_own_words_are_in_the_metadata(gateway):
    """As LlamaStack has them; here for a category that OpenAI doesn't have."""
    async with gateway.client() as http:
        answer = await http.post("/v1/moderations", json={"input": "tax"})
    [result] = answer.json()["results"]
    assert result["flagged"] is True
    assert set(result["categories"].values()) == {False}
    assert result["metadata"] == {"violation_type": ["S6"]}
    assert result["user_message"]


@pytest.mark.parametrize(
    ("body", "status", "param", "code"),
    [
        ({}, 400, "input", "missing_required_parameter"),
        ({"input": None}, 400, "input", "invalid_type"),
        ({"input": 1}, 400, "input", "invalid_type"),
        ({"input": []}, 400, "input", "empty_array"),
        ({"input": [1]}, 400, "input[0]", "invalid_type"),
        ({"input": ["a"] * 1001}, 400, "input", "invalid_value"),
        ({"input": ["a", {"type": "text", "text": "b"}]}, 400, "input", "invalid_value"),
        ({"input": [{"type": "audio"}]}, 400, "input[0].type", "invalid_value"),
        ({"input": [{"type": "text"}]}, 400, "input[0].text", "missing_required_parameter"),
        (
            {"input": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]},
            400,
            "input[0].image_url.url",
            "invalid_value",
        ),
        (
            {"input": [{"type": "image_url", "image_url": {"url": PNG}}], "model": GUARDIAN},
            400,
            "input",
            "images_not_supported",
        ),
        (
            {"input": [{"type": "image_url", "image_url": {"url": PNG}}], "model": "words"},
            400,
            "input",
            "images_not_supported",
        ),
        ({"input": "a", "model": "nope"}, 404, "model", "model_not_found"),
        ({"input": "a " * 5000}, 400, "input", "context_length_exceeded"),
    ],
)
async def test_what_is_wrong_is_named(gateway, body, status, param, code):
    """In OpenAI's shape; the last one is too long for the model."""
    async with gateway.client() as http:
        error = refused(await http.post("/v1/moderations", json=body), status)
    assert (error["param"], error["code"]) == (param, code)


async def test_a_model_that_is_no_guard_is_refused(servers):
    """Kinds are found out, and a guard is found out by its name."""
    async with (
        InProcessGateway(
            discover=[servers[CHAT].url, servers[GUARDIAN].url], models=[CHAT, GUARDIAN]
        ) as gateway,
        gateway.client() as http,
    ):
        kinds = {model.id: model.kind for model in gateway.application.catalog.models()}
        assert kinds == {CHAT: "chat", GUARDIAN: "moderation"}
        answer = await http.post("/v1/moderations", json={"input": "kill"})
        assert answer.json()["model"] == GUARDIAN  # the only guard there is
        answer = await http.post("/v1/moderations", json={"input": "kill", "model": CHAT})
        assert refused(answer, 400)["code"] == "model_not_supported"
        # A guard can still be talked to.
        chat = {"model": GUARDIAN, "messages": [{"role": "user", "content": "hi"}]}
        kwargs = {"chat_template_kwargs": {"guardian_config": {"risk_name": "harm"}}}
        assert (await http.post("/v1/chat/completions", json=chat | kwargs)).status_code == 200


async def test_without_a_guard_there_is_no_moderation(servers):
    """The answer says what to configure."""
    async with (
        InProcessGateway(discover=[servers[CHAT].url], models=[CHAT]) as gateway,
        gateway.client() as http,
    ):
        error = refused(await http.post("/v1/moderations", json={"input": "a"}), 400)
    assert (error["param"], error["code"]) == ("model", "moderation_not_available")
    assert "moderation.models" in error["message"]


async def test_of_several_guards_one_must_be_named(servers, detectors):
    """Where none is the default."""
    detector = {"name": "words", "url": detectors.url}
    async with (
        InProcessGateway(
            discover=[servers[GUARDIAN].url],
            models=[GUARDIAN],
            moderation={"detectors": [detector]},
        ) as gateway,
        gateway.client() as http,
    ):
        error = refused(await http.post("/v1/moderations", json={"input": "a"}), 400)
    assert (error["param"], error["code"]) == ("model", "missing_required_parameter")


async def test_a_server_without_probabilities_gives_0_or_1(servers):
    """Where it isn't asked for them."""
    moderation = {"models": [{"model": LLAMA_GUARD, "logprobs": False}]}
    async with (
        InProcessGateway(
            discover=[servers[LLAMA_GUARD].url], models=[LLAMA_GUARD], moderation=moderation
        ) as gateway,
        gateway.client() as http,
    ):
        answer = await http.post("/v1/moderations", json={"input": "kill"})
        assert answer.json()["results"][0]["category_scores"]["violence"] == 1.0
    assert "logprobs" not in json.loads(servers[LLAMA_GUARD].requests[-1].body)


async def test_an_alias_of_a_configured_guard(servers):
    """Names are resolved as everywhere; OpenAI's own name may be given to a model."""
    configured = {
        "id": "guard",
        "aliases": ["omni-moderation-latest"],
        "backends": [{"url": servers[GUARDIAN].url, "model": GUARDIAN}],
    }
    moderation = {"models": [{"model": "omni-moderation-latest", "risks": ["violence"]}]}
    async with (
        InProcessGateway(configured=[configured], models=["guard"], moderation=moderation) as one,
        AsyncOpenAI(base_url=one.base_url, api_key="none") as client,
    ):
        answer = await client.moderations.create(input="kill", model="omni-moderation-latest")
        assert answer.model == "omni-moderation-latest"
        assert flagged_in(answer.results[0]) == {"violence"}


async def test_the_calls_are_spans_of_the_request(gateway, client, detectors):
    """The guard model's a chat, the detector's its own; the trace goes on to the detector."""
    await client.moderations.create(input="You idiot", model="words")
    span = await gateway.span("detect words")
    server = await gateway.span("POST /v1/moderations")
    assert span.kind.name == "CLIENT"
    assert span.parent.span_id == server.context.span_id
    assert span.attributes["understudy.detector.name"] == "words"
    assert span.attributes["understudy.detector.texts"] == 1
    assert span.attributes["understudy.detector.flagged"] == 1
    assert span.attributes["server.address"] == "127.0.0.1"
    parent = detectors.requests[-1].headers["traceparent"].split("-")[2]
    assert int(parent, 16) == span.context.span_id
    await client.moderations.create(input="hello", model=LLAMA_GUARD)
    span = await gateway.span(f"chat {LLAMA_GUARD}")
    server = await gateway.span("POST /v1/moderations")
    assert span.parent.span_id == server.context.span_id
    assert not any("idiot" in str(one.attributes) for one in gateway.spans())


async def test_the_body_is_bounded(servers):
    """By the setting for bodies with messages."""
    async with (
        InProcessGateway(
            discover=[servers[GUARDIAN].url],
            models=[GUARDIAN],
            limits={"max_body_bytes": 1000},
        ) as gateway,
        httpx.AsyncClient(base_url=gateway.root_url, timeout=30) as http,
    ):
        refused(await http.post("/v1/moderations", json={"input": "a" * 1000}), 413)
