"""InferenceServices are models as soon as they are ready and as long as they are; nothing that goes
wrong between the gateway and the API server takes a model away."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from adapters.kubernetes import KServe, watch
from gateway.configuration import load_settings
from gateway.routing import addresses
from gateway.settings import KServeSettings, ModelSettings, SettingsError
from tests.support.checks import check, check_one
from tests.support.inprocess import InProcessGateway, until
from tests.support.kubernetes import NAMESPACE, TOKEN, ApiServer, inference_service
from tests.support.upstream import FakeVllm

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of tests."""
    monkeypatch.setattr(watch, "FIRST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(watch, "LONGEST_PAUSE_SECONDS", 0.1)


@pytest.fixture
async def api() -> AsyncIterator[ApiServer]:
    async with ApiServer() as server:
        yield server


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    return file


def settings_of(api: ApiServer, token_file: Path, **others: Any) -> dict[str, Any]:
    return {
        "enabled": True,
        "namespaces": [NAMESPACE],
        "api_server": api.url,
        "token_file": str(token_file),
        "services_token_file": str(token_file),
        **others,
    }


class Following:
    """What a source says, the newest."""

    def __init__(self, source: KServe) -> None:
        self._source = source
        self.said: list[Sequence[ModelSettings]] = []

    async def run(self) -> None:
        async for models in self._source.watch():
            self.said.append(models)

    @property
    def ids(self) -> list[str]:
        return [model.id for model in self.said[-1]] if self.said else []

    async def until(self, *ids: str) -> None:
        await until(lambda: self.said and self.ids == list(ids), f"the models {ids}")


@asynccontextmanager
async def following(api: ApiServer, token_file: Path, **others: Any) -> AsyncIterator[Following]:
    settings = KServeSettings(**settings_of(api, token_file, **others))
    found = Following(KServe(settings, folder=token_file.parent))
    task = asyncio.create_task(found.run())
    try:
        yield found
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


# -- what is followed ------------------------------------------------------------------------------


async def test_services_appear_change_and_vanish(api: ApiServer, token_file: Path):
    """Each within a moment, by the watch alone: it is listed once."""
    await api.apply(inference_service("a", url="http://a.svc"))
    async with following(api, token_file) as found:
        await found.until("a")
        await api.apply(inference_service("b", url="http://b.svc"))
        await found.until("a", "b")
        await api.apply(inference_service("a", url="http://a.svc", ready=False))
        await found.until("b")
        await api.apply(inference_service("a", url="http://a.svc"))
        await found.until("a", "b")
        await api.delete("b")
        await found.until("a")
    lists = [query for _, query in api.asked if "watch" not in query]
    assert len(lists) == 1


async def test_one_model_name_over_several_services(api: ApiServer, token_file: Path):
    """The quantized one three times as often, the full one behind them; in every namespace."""
    await api.apply(
        inference_service("granite-w4a16", url="http://q.svc", model="granite", weight="3"),
        inference_service("granite-fp8", url="http://f.svc", model="granite", aliases="gpt-4o"),
        inference_service(
            "granite", namespace="other", url="http://full.svc", priority="1", kind="chat"
        ),
    )
    async with following(api, token_file, namespaces=[NAMESPACE, "other"]) as found:
        await until(lambda: found.said and len(found.said[-1][0].backends) == 3, "three backends")
        [model] = found.said[-1]
    assert (model.id, model.aliases, model.kind) == ("granite", ["gpt-4o"], "chat")
    assert [(one.url, one.model, one.weight, one.priority) for one in model.backends] == [
        ("http://f.svc:8080", "granite-fp8", 1, 0),
        ("http://q.svc:8080", "granite-w4a16", 3, 0),
        ("http://full.svc:8080", "granite", 1, 1),
    ]


async def test_only_those_with_the_label_count(api: ApiServer, token_file: Path):
    """One that loses it is gone, without being deleted."""
    label = {"understudy.dev/serve": "true"}
    await api.apply(
        inference_service("a", url="http://a.svc", labels=label),
        inference_service("b", url="http://b.svc"),
    )
    async with following(api, token_file, label_selector="understudy.dev/serve=true") as found:
        await found.until("a")
        await api.apply(inference_service("b", url="http://b.svc", labels=label))
        await found.until("a", "b")
        await api.apply(inference_service("a", url="http://a.svc"))
        await found.until("b")


async def test_lists_come_in_pages(
    api: ApiServer, token_file: Path, monkeypatch: pytest.MonkeyPatch
):
    """All of them, and no more than the bound."""
    monkeypatch.setattr(watch, "PAGE", 3)
    monkeypatch.setattr(watch, "MOST_OBJECTS", 7)
    await api.apply(*(inference_service(f"m{n}", url=f"http://m{n}.svc") for n in range(9)))
    async with following(api, token_file) as found:
        await found.until(*(f"m{n}" for n in range(7)))


# -- what goes wrong -------------------------------------------------------------------------------


async def test_a_forgotten_version_is_listed_anew(api: ApiServer, token_file: Path):
    """410 Gone: what happened meanwhile is found, and nothing was lost in between."""
    await api.apply(inference_service("a", url="http://a.svc"))
    async with following(api, token_file) as found:
        await found.until("a")
        await api.apply(inference_service("b", url="http://b.svc"))
        await found.until("a", "b")
        await api.compact()
        await until(lambda: len([1 for _, q in api.asked if "watch" not in q]) >= 2, "a list")
        await api.apply(inference_service("c", url="http://c.svc"))
        await found.until("a", "b", "c")
    assert all(said for said in found.said)


async def test_a_dropped_watch_is_taken_up_where_it_was(api: ApiServer, token_file: Path):
    """From the last version, so that what came meanwhile isn't missed."""
    await api.apply(inference_service("a", url="http://a.svc"))
    async with following(api, token_file) as found:
        await found.until("a")
        await until(lambda: api.watching == 1, "a watch")
        await api.drop_watches()
        await until(lambda: api.watching == 0, "no watch")
        await api.apply(inference_service("b", url="http://b.svc"))
        await found.until("a", "b")


async def test_an_api_server_that_fails_takes_no_model_away(
    api: ApiServer, token_file: Path, caplog: pytest.LogCaptureFixture
):
    """500s for a while, then it goes on; the log has it once, not once a try."""
    await api.apply(inference_service("a", url="http://a.svc"))
    async with following(api, token_file) as found:
        await found.until("a")
        api.failing = 500
        await api.compact()
        before = len(api.asked)
        await until(lambda: len(api.asked) > before + 3, "tries")
        assert found.ids == ["a"]
        api.failing = None
        await api.apply(inference_service("b", url="http://b.svc"))
        await found.until("a", "b")
    assert all(said for said in found.said)
    assert caplog.text.count("etcdserver: request timed out") == 1


async def test_an_api_server_that_is_not_there_yet_is_waited_for(
    api: ApiServer, token_file: Path, caplog: pytest.LogCaptureFixture
):
    """A gateway that starts before the network does."""
    await api.apply(inference_service("a", url="http://a.svc"))
    await api.stop()
    async with following(api, token_file) as found:
        await until(lambda: "the API server can't be reached" in caplog.text, "a warning")
        assert found.said == []
    assert TOKEN not in caplog.text


async def test_a_namespace_that_is_denied_does_not_stop_the_others(
    api: ApiServer, token_file: Path, caplog: pytest.LogCaptureFixture
):
    """The log has what Kubernetes says of the right that is missing."""
    api.denied = {"secret"}
    await api.apply(inference_service("a", url="http://a.svc"))
    async with following(api, token_file, namespaces=["secret", NAMESPACE]) as found:
        await found.until("a")
        await until(lambda: "cannot list resource" in caplog.text, "a warning")
        api.denied = set()
        await api.apply(inference_service("b", namespace="secret", url="http://b.svc"))
        await found.until("a", "b")


async def test_a_rotated_token_is_used(api: ApiServer, token_file: Path):
    """The kubelet writes a new one every hour; the old one ends."""
    await api.apply(inference_service("a", url="http://a.svc"))
    async with following(api, token_file) as found:
        await found.until("a")
        api.tokens = {"the-next-token"}
        token_file.write_text("the-next-token")  # noqa: ASYNC240
        await api.drop_watches()
        await api.apply(inference_service("b", url="http://b.svc"))
        await found.until("a", "b")


async def test_the_api_server_is_checked_by_its_authority(
    private_ca: trustme.CA, token_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """The token goes to nobody else."""
    cert, key, ca = tmp_path / "c.pem", tmp_path / "k.pem", tmp_path / "ca.crt"
    issued = private_ca.issue_cert("127.0.0.1")
    cert.write_bytes(issued.cert_chain_pems[0].bytes())
    issued.private_key_pem.write_to_path(str(key))
    async with ApiServer(ssl_certfile=str(cert), ssl_keyfile=str(key)) as api:
        await api.apply(inference_service("a", url="http://a.svc"))
        async with following(api, token_file):
            await until(lambda: "CERTIFICATE_VERIFY_FAILED" in caplog.text, "a warning")
        assert api.asked == []
        private_ca.cert_pem.write_to_path(str(ca))
        async with following(api, token_file) as found:  # as the pod's folder has it
            await found.until("a")


def test_outside_of_a_pod_the_settings_must_say_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """By their names, and before anything starts."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(SettingsError, match=r"kserve\.api_server: this process runs in no pod"):
        KServe(KServeSettings(enabled=True), folder=tmp_path)
    with pytest.raises(SettingsError, match=r"kserve\.namespaces"):
        KServe(KServeSettings(enabled=True, api_server="https://a"), folder=tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    (tmp_path / "namespace").write_text("gateway\n")
    KServe(KServeSettings(enabled=True), folder=tmp_path)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"api_server": "http://api.example.com"}, "kserve.api_server: expected https"),
        ({"api_server": "api.example.com:6443"}, "kserve.api_server: expected https://host:port"),
        ({"namespaces": ["Not_A_Name"]}, "kserve.namespaces"),
        ({"token_file": "/nowhere"}, "kserve.token_file: no such file"),
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, Any], words: str):
    """At the start, by their keys."""
    variables = {
        f"UNDERSTUDY_KSERVE__{key.upper()}": json.dumps(value) for key, value in wrong.items()
    }
    with pytest.raises(SettingsError, match=words):
        load_settings(None, {"UNDERSTUDY_KSERVE__ENABLED": "true", **variables})


# -- end to end ------------------------------------------------------------------------------------


async def listed(client: httpx.AsyncClient) -> list[str]:
    return [model["id"] for model in (await client.get("/v1/models")).json()["data"]]


async def test_models_of_the_gateway_follow_and_are_served(api: ApiServer, token_file: Path):
    """They come and go in /v1/models without a restart, and calls reach them with their token."""
    async with (
        FakeVllm(["granite-w4a16"], api_key=TOKEN) as upstream,
        InProcessGateway(kserve=settings_of(api, token_file)) as gateway,
        gateway.client() as client,
    ):
        assert await listed(client) == []
        one = inference_service(
            "granite-w4a16", url=upstream.root_url, model="granite", auth="true"
        )
        await api.apply(one)
        await until(lambda: gateway._knows("granite"), "the model")
        assert await listed(client) == ["granite"]
        body = {"model": "granite", "messages": [{"role": "user", "content": "hi"}]}
        answer = await client.post(CHAT, json=body)
        assert answer.status_code == 200
        assert answer.json()["model"] == "granite"
        [sent] = [one for one in upstream.requests_to(CHAT) if one.method == "POST"]
        assert sent.json["model"] == "granite-w4a16"
        await api.delete("granite-w4a16")
        await until(lambda: not gateway._knows("granite"), "no model")
        assert (await client.post(CHAT, json=body)).status_code == 404


async def test_pods_of_a_headless_service_are_backends(
    api: ApiServer, token_file: Path, monkeypatch: pytest.MonkeyPatch
):
    """Calls reach a pod by its address, under the service's name."""
    known = {"granite-predictor.models.svc": ["127.0.0.1"]}

    async def look_up(host: str) -> list[str]:
        return known[host]

    monkeypatch.setattr(addresses, "look_up", look_up)
    async with FakeVllm(["granite"]) as upstream:
        settings = settings_of(api, token_file, port=upstream.port)
        await api.apply(inference_service("granite"))
        async with (
            InProcessGateway(kserve=settings, discover_interval_seconds=0.1) as gateway,
            gateway.client() as client,
        ):
            await until(lambda: gateway._knows("granite"), "the model")

            def hosts() -> list[str]:
                return [one.server.host for one in gateway.application.discovery.servers]

            await until(lambda: hosts() == ["127.0.0.1"], "the pod")
            body = {"model": "granite", "messages": [{"role": "user", "content": "hi"}]}
            assert (await client.post(CHAT, json=body)).status_code == 200
            [sent] = [one for one in upstream.requests_to(CHAT) if one.method == "POST"]
            assert sent.headers["host"] == f"granite-predictor.models.svc:{upstream.port}"
            known["granite-predictor.models.svc"] = ["127.0.0.1", "127.0.0.2"]
            await until(lambda: hosts() == ["127.0.0.1", "127.0.0.2"], "two pods")


async def test_an_addressed_backend_proves_its_name(private_ca: trustme.CA, tmp_path: Path):
    """TLS checks the certificate for the URL's host, not for the address."""
    ca_file = tmp_path / "ca.pem"
    private_ca.cert_pem.write_to_path(str(ca_file))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    private_ca.issue_cert("granite.models.svc").configure_cert(context)
    async with FakeVllm(["granite"], ssl_context=context) as upstream:
        one = {"ca_file": str(ca_file), "address": "127.0.0.1"}
        good = {**one, "url": f"https://granite.models.svc:{upstream.port}"}
        bad = {**one, "url": f"https://evil.models.svc:{upstream.port}"}
        assert (await check_one(tmp_path, "model server", discover=[good])).state == "ok"
        assert (await check_one(tmp_path, "model server", discover=[bad])).state == "failed"


# -- understudy check ------------------------------------------------------------------------------


async def test_check_lists_what_would_be_served(api: ApiServer, token_file: Path):
    """Each namespace, with the Role that is missing, and each model's answer."""
    api.denied = {"secret"}
    async with FakeVllm(["a"]) as upstream:
        await api.apply(
            inference_service("a", url=upstream.root_url),
            inference_service("b", url="http://b.svc", ready=False),
        )
        settings = settings_of(api, token_file, namespaces=[NAMESPACE, "secret", "empty"])
        found = await check(token_file.parent, "kserve", kserve=settings)
    assert [one.state for one in found] == ["ok", "failed", "warning", "ok"]
    assert found[0].found == "namespace models: 2 InferenceServices, ready are: a"
    assert "cannot list resource" in found[1].found
    assert "Role" in (found[1].mend or "")
    assert (found[3].system, found[3].address) == ("model server", upstream.root_url)
    assert found[3].found.startswith("a (chat) chatted in ")


async def test_check_says_what_is_wrong_with_the_token(api: ApiServer, token_file: Path):
    """And doesn't show it."""
    token_file.write_text("an-old-token")  # noqa: ASYNC240
    found = await check_one(token_file.parent, "kserve", kserve=settings_of(api, token_file))
    assert found.state == "failed"
    assert "401" in found.found
    assert "token" in (found.mend or "")
    assert "an-old-token" not in repr(found)
