"""Limits, as OpenAI's SDK meets them."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI, BadRequestError, RateLimitError

from tests.support.callers import TrustingGateway
from tests.support.upstream import FakeVllm, faults
from tests.support.upstream.scripted import CHAT, Said, Script

pytestmark = pytest.mark.anyio

DURATION = re.compile(r"\d+ms|\d+(\.\d+)?s|\d+m\d+s|\d+h\d+m\d+s")


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may be slow to count, which is no outage that requests pass uncounted in."""
    monkeypatch.setattr("gateway.limits.ledger._PATIENCE_SECONDS", 30.0)


def limited(
    upstream: FakeVllm, tmp_path: Path, *others: FakeVllm, **limits: Any
) -> TrustingGateway:
    """A gateway with these limits, whose state is its own."""
    servers = [upstream, *others]
    return TrustingGateway(
        discover=[one.url for one in servers],
        models=[one.models[0] for one in servers],
        limits=limits,
        data_dir=str(tmp_path),
    )


async def ask(client: AsyncOpenAI, content: str = "Hi", **options: Any) -> Any:
    options.setdefault("model", "fake-chat")
    return await client.chat.completions.create(
        messages=[{"role": "user", "content": content}], **options
    )


def asked(upstream: FakeVllm) -> int:
    """How many chat completions the server was asked for."""
    return sum(one.method == "POST" for one in upstream.requests_to(CHAT))


def limits_of(headers: httpx.Headers) -> dict[str, str]:
    """What the headers say of limits, by the rest of their names."""
    prefix = "x-ratelimit-"
    return {name.removeprefix(prefix): value for name, value in headers.items() if prefix in name}


async def test_requests_beyond_the_limit_are_refused(upstream: FakeVllm, tmp_path: Path):
    """The fourth of three a minute is OpenAI's 429, with when to try again."""
    async with limited(upstream, tmp_path, requests_per_minute=3) as gateway:
        client = gateway.caller()
        for _ in range(3):
            await ask(client)
        with pytest.raises(RateLimitError) as raised:
            await ask(client)
    error = raised.value
    assert (error.code, error.type) == ("rate_limit_exceeded", "requests")
    assert "Limit 3" in error.message
    assert 10 <= int(error.response.headers["retry-after"]) <= 20
    assert limits_of(error.response.headers)["remaining-requests"] == "0"
    assert asked(upstream) == 3


@pytest.mark.parametrize("stream", [False, True])
async def test_answers_say_what_is_left(upstream: FakeVllm, tmp_path: Path, *, stream: bool):
    """Every answer has OpenAI's headers, the streamed one as well."""
    async with limited(
        upstream, tmp_path, requests_per_minute=60, tokens_per_minute=6000
    ) as gateway:
        client = gateway.caller()
        raw = await client.chat.completions.with_raw_response.create(
            model="fake-chat", messages=[{"role": "user", "content": "Hi"}], stream=stream
        )
        said = limits_of(raw.headers)
    assert said["limit-requests"] == "60"
    assert said["remaining-requests"] == "59"
    assert said["limit-tokens"] == "6000"
    assert 5900 <= int(said["remaining-tokens"]) < 6000
    assert DURATION.fullmatch(said["reset-requests"])
    assert DURATION.fullmatch(said["reset-tokens"])
    assert said["reset-requests"].endswith("ms") or said["reset-requests"] == "1s"


@pytest.mark.parametrize("stream", [False, True])
async def test_tokens_are_those_that_were_used(upstream: FakeVllm, tmp_path: Path, *, stream: bool):
    """What was set aside for a long answer comes back when the answer is short."""
    upstream.behave(CHAT, Script(Said("one two three")))
    async with limited(upstream, tmp_path, tokens_per_minute=600_000) as gateway:
        client = gateway.caller()
        for _ in range(4):
            answer = await ask(client, max_tokens=100_000, stream=stream)
            if stream:
                [_ async for _ in answer]
        raw = await client.chat.completions.with_raw_response.create(
            model="fake-chat", messages=[{"role": "user", "content": "Hi"}]
        )
    assert int(limits_of(raw.headers)["remaining-tokens"]) > 599_000


async def test_tokens_beyond_the_limit_are_refused(upstream: FakeVllm, tmp_path: Path):
    """An answer longer than was thought is paid for by those who come after."""
    upstream.behave(CHAT, Script(Said("word " * 200)))
    async with limited(upstream, tmp_path, tokens_per_minute=200) as gateway:
        client = gateway.caller()
        await ask(client)
        with pytest.raises(RateLimitError) as raised:
            await ask(client)
    assert (raised.value.code, raised.value.type) == ("rate_limit_exceeded", "tokens")
    assert int(raised.value.response.headers["retry-after"]) >= 1


async def test_a_budget_that_is_used_up_is_a_quota(upstream: FakeVllm, tmp_path: Path):
    """It is OpenAI's insufficient_quota, which no client tries again."""
    async with limited(upstream, tmp_path, tokens_per_month=5) as gateway:
        client = gateway.caller().with_options(max_retries=2)
        await ask(client)
        with pytest.raises(RateLimitError) as raised:
            await ask(client)
    assert (raised.value.code, raised.value.type) == ("insufficient_quota", "insufficient_quota")
    assert raised.value.response.headers["x-should-retry"] == "false"
    assert asked(upstream) == 1


async def test_requests_at_once_are_limited(upstream: FakeVllm, tmp_path: Path):
    """The third at a time is refused, and taken once one of the two has ended."""
    upstream.behave(CHAT, faults.hangs_before_head(), times=2)
    async with limited(upstream, tmp_path, concurrent_requests=2) as gateway:
        client = gateway.caller()
        running = [asyncio.create_task(ask(client)) for _ in range(2)]
        await upstream.wait_for_request(2, CHAT)
        with pytest.raises(RateLimitError) as raised:
            await ask(client)
        assert raised.value.type == "requests"
        for one in running:
            one.cancel()
        await asyncio.wait(running)

        async def passes() -> bool:
            try:
                await ask(client)
            except RateLimitError:
                return False
            return True

        async with asyncio.timeout(10):  # a place that is not given back expires after 15 s
            while not await passes():
                await asyncio.sleep(0.01)


ENDPOINTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "fake-chat", "messages": [{"role": "user", "content": "a"}]},
    "/v1/completions": {"model": "fake-chat", "prompt": "a"},
    "/v1/embeddings": {"model": "fake-embedding", "input": "a"},
    "/v1/messages": {
        "model": "fake-chat",
        "max_tokens": 5,
        "messages": [{"role": "user", "content": "a"}],
    },
    "/v1/responses": {"model": "fake-chat", "input": "a", "store": False},
}


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_every_endpoint_that_asks_a_model_is_limited(
    upstream: FakeVllm, embedding_upstream: FakeVllm, tmp_path: Path, path: str
):
    """The second of one a minute is refused, whatever the endpoint."""
    gateway = limited(upstream, tmp_path, embedding_upstream, requests_per_minute=1)
    async with gateway, gateway.client() as client:
        first = await client.post(path, json=ENDPOINTS[path])
        second = await client.post(path, json=ENDPOINTS[path])
    assert first.status_code == 200, first.text
    assert second.status_code == 429
    assert second.headers["retry-after"]
    assert limits_of(first.headers)["remaining-requests"] == "0"
    assert limits_of(second.headers)["limit-requests"] == "1"


async def test_a_streamed_response_is_refused_by_its_status(upstream: FakeVllm, tmp_path: Path):
    """A stream that may not begin is a 429, not an event."""
    async with limited(upstream, tmp_path, requests_per_minute=1) as gateway:
        client = gateway.caller()
        async with client.responses.stream(model="fake-chat", input="Hi") as stream:
            await stream.until_done()
        with pytest.raises(RateLimitError):
            async with client.responses.stream(model="fake-chat", input="Hi") as stream:
                await stream.until_done()


async def test_the_calls_of_a_response_are_counted(upstream: FakeVllm, tmp_path: Path):
    """A response takes a minute's tokens for all that its models used."""
    upstream.behave(CHAT, Script(Said("word " * 300)))
    async with limited(upstream, tmp_path, tokens_per_minute=250) as gateway:
        client = gateway.caller()
        await client.responses.create(model="fake-chat", input="Hi")
        with pytest.raises(RateLimitError) as raised:
            await client.responses.create(model="fake-chat", input="Hi")
    assert raised.value.type == "tokens"


async def test_projects_keys_and_models_have_limits_of_their_own(
    upstream: FakeVllm, tmp_path: Path
):
    """One project's, key's or model's use is not another's."""
    other = FakeVllm(["other-chat"])
    rules = [
        {"project": "*", "requests_per_minute": 3},
        {"project": "big", "requests_per_minute": 6},
        {"key": "*", "requests_per_minute": 2},
        {"model": "other-chat", "requests_per_minute": 1},
    ]

    async def passed(client: AsyncOpenAI, times: int, model: str = "fake-chat") -> int:
        done = 0
        for _ in range(times):
            try:
                await ask(client, model=model)
            except RateLimitError:
                continue
            done += 1
        return done

    async with other, limited(upstream, tmp_path, other, rules=rules) as gateway:
        assert await passed(gateway.caller("small", key="key_1"), 4) == 2
        assert await passed(gateway.caller("small", key="key_2"), 4) == 1
        assert await passed(gateway.caller("big"), 8) == 6
        assert await passed(gateway.caller("red"), 2, "other-chat") == 1
        assert await passed(gateway.caller("blue"), 2, "other-chat") == 0


async def test_nothing_is_said_of_limits_where_there_are_none(upstream: FakeVllm, tmp_path: Path):
    """Without rules there are no headers, and no counters."""
    async with limited(upstream, tmp_path) as gateway:
        raw = await gateway.caller().chat.completions.with_raw_response.create(
            model="fake-chat", messages=[{"role": "user", "content": "Hi"}]
        )
        assert gateway.application.metering.admission is None
    assert limits_of(raw.headers) == {}


async def test_a_bad_request_takes_nothing(upstream: FakeVllm, tmp_path: Path):
    """What can't be read is refused before it is counted."""
    async with limited(upstream, tmp_path, requests_per_minute=1) as gateway:
        client = gateway.caller()
        with pytest.raises(BadRequestError):
            await client.chat.completions.create(model="fake-chat", messages=[])
        await ask(client)


async def test_refusals_are_counted(upstream: FakeVllm, tmp_path: Path):
    """A metric tells which kind of limit it was."""
    async with limited(upstream, tmp_path, requests_per_minute=1) as gateway:
        client = gateway.caller()
        await ask(client)
        for _ in range(2):
            with pytest.raises(RateLimitError):
                await ask(client)
        counted = gateway.metric(
            "understudy_limits_refused_total", understudy_limit_kind="requests_per_minute"
        )
    assert counted == 2


async def test_lines_of_batches_wait(upstream: FakeVllm, tmp_path: Path):
    """A batch with more lines than a minute allows ends well, later."""
    line = (
        '{{"custom_id":"{}","method":"POST","url":"/v1/chat/completions",'
        '"body":{{"model":"fake-chat","messages":[{{"role":"user","content":"Hi"}}]}}}}\n'
    )
    content = "".join(line.format(number) for number in range(4)).encode()
    # One a second, and two are left.
    async with limited(upstream, tmp_path, requests_per_minute=60) as gateway:
        client = gateway.caller()
        for _ in range(58):
            await ask(client)
        file = await client.files.create(file=("in.jsonl", content), purpose="batch")
        batch = await client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        async with asyncio.timeout(30):
            while batch.status not in ("completed", "failed", "expired"):
                await asyncio.sleep(0.1)
                batch = await client.batches.retrieve(batch.id)
    assert batch.status == "completed"
    assert batch.request_counts is not None
    assert (batch.request_counts.completed, batch.request_counts.failed) == (4, 0)


QUOTAS = [{"project": "*", "max_files": 2, "max_file_bytes_total": 100, "max_vector_stores": 1}]


async def test_a_project_keeps_no_more_files_than_its_quota(upstream: FakeVllm, tmp_path: Path):
    """The third file is insufficient_quota, until one is deleted; another project has its own."""
    async with limited(upstream, tmp_path, quotas=QUOTAS) as gateway:
        client = gateway.caller("red")
        files = [
            await client.files.create(file=(f"{n}.txt", b"text"), purpose="assistants")
            for n in range(2)
        ]
        with pytest.raises(RateLimitError) as raised:
            await client.files.create(file=("3.txt", b"text"), purpose="assistants")
        assert raised.value.code == "insufficient_quota"
        assert raised.value.param == "file"
        await gateway.caller("blue").files.create(file=("1.txt", b"text"), purpose="assistants")
        await client.files.delete(files[0].id)
        await client.files.create(file=("3.txt", b"text"), purpose="assistants")


async def test_a_project_keeps_no_more_bytes_than_its_quota(upstream: FakeVllm, tmp_path: Path):
    """A file that is too much leaves nothing behind, in the object store either."""
    async with limited(upstream, tmp_path, quotas=QUOTAS) as gateway:
        client = gateway.caller()
        await client.files.create(file=("1.txt", b"x" * 60), purpose="assistants")
        with pytest.raises(RateLimitError) as raised:
            await client.files.create(file=("2.txt", b"x" * 41), purpose="assistants")
        assert "Delete some" in raised.value.message
        await client.files.create(file=("2.txt", b"x" * 40), purpose="assistants")
        kept = [path for path in (tmp_path / "objects").rglob("*") if path.is_file()]
    assert len(kept) == 2


async def test_files_at_once_do_not_slip_past_the_quota(upstream: FakeVllm, tmp_path: Path):
    """Of ten uploads at one moment two are kept."""
    async with limited(upstream, tmp_path, quotas=QUOTAS) as gateway:
        client = gateway.caller()
        uploads = [
            client.files.create(file=(f"{n}.txt", b"text"), purpose="assistants") for n in range(10)
        ]
        done = await asyncio.gather(*uploads, return_exceptions=True)
    assert sum(not isinstance(one, BaseException) for one in done) == 2
    assert all(isinstance(one, RateLimitError) for one in done if isinstance(one, BaseException))


async def test_uploads_in_parts_count_too(upstream: FakeVllm, tmp_path: Path):
    """An upload that would be too much is refused when it is announced."""
    async with limited(upstream, tmp_path, quotas=QUOTAS) as gateway:
        with pytest.raises(RateLimitError) as raised:
            await gateway.caller().uploads.create(
                bytes=101, filename="a.txt", mime_type="text/plain", purpose="assistants"
            )
    assert raised.value.code == "insufficient_quota"


async def test_a_project_keeps_no_more_stores_than_its_quota(
    upstream: FakeVllm, embedding_upstream: FakeVllm, tmp_path: Path
):
    """The second vector store is insufficient_quota, until the first is deleted."""
    async with limited(upstream, tmp_path, embedding_upstream, quotas=QUOTAS) as gateway:
        client = gateway.caller()
        store = await client.vector_stores.create(name="one")
        with pytest.raises(RateLimitError) as raised:
            await client.vector_stores.create(name="two")
        assert raised.value.code == "insufficient_quota"
        await client.vector_stores.delete(store.id)
        await client.vector_stores.create(name="two")


async def test_a_store_of_counters_that_is_away_lets_requests_pass(
    upstream: FakeVllm, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """By default nobody suffers for it: it is counted, and told once."""
    limits = {"store": "redis://127.0.0.1:1/0", "requests_per_minute": 1}
    async with limited(upstream, tmp_path, **limits) as gateway:
        client = gateway.caller()
        for _ in range(5):
            await ask(client)
        assert gateway.metric("understudy_limits_uncounted_total") == 5
        assert gateway.metric("understudy_limits_store_failures_total") >= 1
    told = [one for one in caplog.records if one.name == "gateway.limits.ledger"]
    assert len(told) == 1


async def test_a_store_of_counters_that_is_away_ends_requests_where_that_is_wanted(
    upstream: FakeVllm, tmp_path: Path
):
    """With on_store_failure: closed nothing passes uncounted."""
    limits = {"store": "redis://127.0.0.1:1/0", "on_store_failure": "closed"}
    gateway = limited(upstream, tmp_path, requests_per_minute=1, **limits)
    async with gateway, gateway.client() as client:
        answer = await client.post(CHAT, json=ENDPOINTS["/v1/chat/completions"])
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "limits_unavailable"
    assert answer.headers["retry-after"] == "1"
    assert asked(upstream) == 0


@pytest.mark.alone
async def test_a_store_of_counters_that_hangs_holds_up_one_request_a_second(
    upstream: FakeVllm, tmp_path: Path
):
    """A request waits a second at most, and those after it don't."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    limits = {"store": f"redis://127.0.0.1:{port}/0", "requests_per_minute": 1}
    async with limited(upstream, tmp_path, **limits) as gateway:
        client = gateway.caller()
        loop = asyncio.get_running_loop()
        began = loop.time()
        await ask(client)
        waited = loop.time() - began
        began = loop.time()
        await ask(client)
        after = loop.time() - began
    server.close()
    assert 0.9 <= waited < 3
    assert after < 0.5


async def test_counters_outlive_the_process(upstream: FakeVllm, tmp_path: Path):
    """A gateway that is started again goes on counting where the last one ended."""
    for expected in (2, 0):
        async with limited(upstream, tmp_path, requests_per_minute=2) as gateway:
            client = gateway.caller()
            done = await asyncio.gather(*(ask(client) for _ in range(3)), return_exceptions=True)
            assert sum(not isinstance(one, Exception) for one in done) == expected


async def test_memory_counts_for_one_process(upstream: FakeVllm, tmp_path: Path):
    """With limits.store: memory no database is asked."""
    async with limited(upstream, tmp_path, store="memory", requests_per_minute=1) as gateway:
        client = gateway.caller()
        await ask(client)
        with pytest.raises(RateLimitError):
            await ask(client)


async def test_many_requests_ask_the_store_seldom(upstream: FakeVllm, tmp_path: Path):
    """Far from the limit, one question is enough for many requests."""
    async with limited(upstream, tmp_path, requests_per_minute=100_000) as gateway:
        asked = 0
        store = gateway.application.metering._ledger._store
        take = store.take

        async def counted(takes: Any) -> Any:
            nonlocal asked
            asked += 1
            return await take(takes)

        store.take = counted  # type: ignore[method-assign]
        client = gateway.caller()
        for _ in range(200):
            await ask(client)
    assert asked <= 5


async def test_without_its_client_redis_is_asked_for_in_words(tmp_path: Path, monkeypatch):
    """A missing extra is named, where it is needed."""
    import sys

    monkeypatch.setitem(sys.modules, "adapters.counters.redis", None)
    from adapters.counters import counters_for
    from gateway.settings import SettingsError
    from tests.support.databases import open_database, sqlite_url

    database = open_database(sqlite_url(tmp_path))
    with pytest.raises(SettingsError, match="understudy-gateway\\[redis\\]"):
        counters_for("redis://127.0.0.1/0", database)
    await database.aclose()
