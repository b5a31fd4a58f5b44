"""A backend that is dead, hung, draining, overloaded or broken costs a caller at most one connect:
the request goes to another, and once the breaker knows, callers don't meet it at all."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import httpx
import pytest

from tests.support.expect import refused
from tests.support.gateway import HOST
from tests.support.inprocess import InProcessGateway, until
from tests.support.upstream import FakeVllm, faults

pytestmark = pytest.mark.anyio

PATH = "/v1/chat/completions"
CHAT = {"model": "fake-chat", "messages": [{"role": "user", "content": "hi"}]}
PING = "ping"  # what the gateway's own probes say
NEVER = 3600.0


def two(*backends: dict[str, Any] | str, **routing: Any) -> InProcessGateway:
    """A gateway with one model on these; discovery asks them once and no more."""
    given = [{"url": one} if isinstance(one, str) else one for one in backends]
    return InProcessGateway(
        configured=[{"id": "fake-chat", "kind": "chat", "backends": given}],
        discover_interval_seconds=NEVER,
        routing={"breaker_seconds": 0.3, **routing},
    )


def asked(server: FakeVllm) -> int:
    """How many callers' requests it has had."""
    return sum(text != PING for text in texts(server))


def probes(server: FakeVllm) -> int:
    """How many of the gateway's own it has had."""
    return sum(text == PING for text in texts(server))


def texts(server: FakeVllm) -> list[str]:
    requests = server.requests_to(PATH)
    return [one.json["messages"][0]["content"] for one in requests if one.method == "POST"]


async def chat(client: httpx.AsyncClient, **more: Any) -> httpx.Response:
    return await client.post(PATH, json={**CHAT, **more})


async def timed(client: httpx.AsyncClient, **more: Any) -> tuple[httpx.Response, float]:
    clock = asyncio.get_running_loop().time
    begun = clock()
    answer = await chat(client, **more)
    return answer, clock() - begun


async def state(gateway: InProcessGateway, server: FakeVllm) -> str:
    backends = gateway.application.catalog.get("fake-chat").backends
    return next(one.breaker.state for one in backends if one.server.port == server.port)


async def test_a_dead_backend_is_met_once(upstream):
    """Of a hundred requests, at once and one by one, none fails, and few meet the dead one."""
    async with FakeVllm(["fake-chat"]) as twin, two(upstream.url, twin.url) as gateway:
        async with gateway.client() as client:
            await twin.stop()
            answers = await asyncio.gather(*(chat(client) for _ in range(50)))
            answers += [await chat(client, stream=True) for _ in range(50)]
        assert {answer.status_code for answer in answers} == {200}
        assert await state(gateway, twin) in ("open", "half_open")
        retried = gateway.metric(
            "understudy_retries_total",
            gen_ai_request_model="fake-chat",
            error_type="upstream_unreachable",
        )
        assert retried <= 50
        ejected = {
            "server_address": HOST,
            "server_port": str(twin.port),
            "understudy_backend_model": "fake-chat",
            "understudy_ejection_reason": "unreachable",
        }
        assert gateway.metric("understudy_upstream_ejections_total", **ejected) == 1


async def test_a_backend_that_comes_back_is_used_again(upstream):
    """The gateway's probe finds out, and no caller has to."""
    async with FakeVllm(["fake-chat"]) as twin, two(upstream.url, twin.url) as gateway:
        async with gateway.client() as client:
            await twin.stop()
            while await state(gateway, twin) == "closed":
                assert (await chat(client)).status_code == 200
            await twin.start()
            async with asyncio.timeout(20):
                while await state(gateway, twin) != "closed":
                    await asyncio.sleep(0.02)
            assert asked(twin) == 0
            for _ in range(40):
                assert (await chat(client)).status_code == 200
        assert asked(twin) > 0


@pytest.mark.alone
async def test_a_backend_that_does_not_accept_costs_one_connect_time(upstream):
    """The first caller waits for it once; the next ones don't."""
    with socket.socket() as listener, socket.socket() as first:
        listener.bind((HOST, 0))
        listener.listen(0)
        first.connect(listener.getsockname())  # the backlog is full now: SYNs go unanswered
        silent = f"http://{HOST}:{listener.getsockname()[1]}/v1"
        timeouts = {"connect": 1.5}
        async with (
            two({"url": silent, "timeouts": timeouts}, {"url": upstream.url, "priority": 1})
            as gateway,
            gateway.client() as client,
        ):  # fmt: skip
            for backend in gateway.application.catalog.get("fake-chat").backends:
                backend.load.down = False  # as if it had fallen silent just now
            answer, seconds = await timed(client)
            assert answer.status_code == 200
            assert seconds < 4
            for _ in range(5):
                answer, seconds = await timed(client)
                assert answer.status_code == 200
                assert seconds < 1.2


@pytest.mark.alone
async def test_a_hung_backend_is_met_once(upstream):
    """It accepts and says nothing: one caller learns that the hard way, and nobody after it."""
    async with FakeVllm(["fake-chat"]) as hung:
        hung.behave(PATH, faults.hangs_before_head())
        slow = {"url": hung.url, "timeouts": {"first_byte": 1.5}}
        async with two(slow, {"url": upstream.url, "priority": 1}) as gateway:
            async with gateway.client() as client:
                assert refused(await chat(client), 504)["code"] == "upstream_timeout"
                for _ in range(10):
                    answer, seconds = await timed(client)
                    assert answer.status_code == 200
                    assert seconds < 1.2
            assert asked(hung) == 1


async def test_a_hung_backend_is_not_probed_with_callers(upstream):
    """Its probes hang as well, and callers don't notice; when it wakes up it is used again."""
    async with FakeVllm(["fake-chat"]) as hung:
        hung.behave(PATH, faults.hangs_before_head())
        slow = {"url": hung.url, "timeouts": {"first_byte": 1.5}}
        async with (
            two(slow, {"url": upstream.url, "priority": 1}, probe_timeout_seconds=0.3) as gateway,
            gateway.client() as client,
        ):
            refused(await chat(client), 504)
            await until(lambda: probes(hung) >= 2, "two probes")
            assert asked(hung) == 1
            assert (await chat(client)).status_code == 200
            assert asked(hung) == 1
            hung.reset()
            async with asyncio.timeout(20):
                while await state(gateway, hung) != "closed":
                    await asyncio.sleep(0.02)
            assert (await chat(client)).status_code == 200
            assert asked(hung) == 2


@pytest.mark.alone
async def test_when_all_backends_hang_the_caller_is_told_at_once(upstream):
    """503 with retry-after, for those who come once that is known."""
    async with FakeVllm(["fake-chat"]) as twin:
        servers = (upstream, twin)
        backends = [{"url": one.url, "timeouts": {"first_byte": 1.5}} for one in servers]
        async with two(*backends) as gateway, gateway.client() as client:
            for server in servers:
                server.behave(PATH, faults.hangs_before_head())
            for _ in servers:
                refused(await chat(client), 504)
            for _ in range(3):
                answer, seconds = await timed(client)
                assert refused(answer, 503)["code"] == "upstream_unavailable"
                assert int(answer.headers["retry-after"]) >= 1
                assert seconds < 1.2
            assert asked(upstream) + asked(twin) == 2
            for server in servers:
                server.reset()
            async with asyncio.timeout(20):
                while (await chat(client)).status_code != 200:
                    await asyncio.sleep(0.05)


async def test_a_draining_backend_loses_no_request(upstream):
    """A vLLM that drains says 500 to new requests while its list of models is still fine."""
    async with FakeVllm(["fake-chat"]) as draining, two(upstream.url, draining.url) as gateway:
        gone = faults.vllm_error(500, "cannot schedule new futures after shutdown")
        async with gateway.client() as client:
            draining.behave(PATH, gone)
            answers = [await chat(client, stream=bool(n % 2)) for n in range(60)]
        assert {answer.status_code for answer in answers} == {200}
        assert asked(draining) == 5  # breaker_failures


async def test_a_server_that_closes_its_connections_loses_no_request(upstream):
    """`connection: close` and a close while idle are ordinary ends."""
    async with FakeVllm(["fake-chat"]) as twin, two(upstream.url, twin.url) as gateway:
        twin.behave(PATH, faults.closes_connection())
        async with gateway.client() as client:
            for _ in range(30):
                assert (await chat(client)).status_code == 200
                upstream.close_idle()
        assert await state(gateway, twin) == "closed"


@pytest.mark.alone
@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
async def test_an_overloaded_backend_is_left_alone_for_as_long_as_it_asks(upstream, stream):
    """It isn't broken: nothing is probed, and when the time is up it gets requests again."""
    async with FakeVllm(["fake-chat"]) as busy:
        busy.behave(PATH, faults.unavailable(retry_after="1"), times=1)
        async with (
            two(busy.url, {"url": upstream.url, "priority": 1}) as gateway,
            gateway.client() as client,
        ):
            begun = asyncio.get_running_loop().time()
            for _ in range(5):
                assert (await chat(client, stream=stream)).status_code == 200
            if asyncio.get_running_loop().time() - begun < 0.9:
                assert asked(busy) == 1
            await asyncio.sleep(1.1)
            assert await state(gateway, busy) == "closed"
            assert (await chat(client, stream=stream)).status_code == 200
            assert (asked(busy), probes(busy)) == (2, 0)


async def test_an_overload_in_the_first_event_is_one_too(upstream):
    """As vLLM with a bounded queue says it to a stream."""
    async with FakeVllm(["fake-chat"]) as busy:
        busy.behave(PATH, faults.overloaded())
        async with (
            two(busy.url, {"url": upstream.url, "priority": 1}) as gateway,
            gateway.client() as client,
        ):
            for _ in range(3):
                answer = await chat(client, stream=True)
                assert answer.status_code == 200
                assert b"Paris" in answer.content
            assert await state(gateway, busy) == "closed"


@pytest.mark.alone
async def test_when_all_are_overloaded_the_caller_is_told_at_once(upstream):
    """503 with the server's own retry-after: nobody is kept waiting in a queue of ours."""
    async with FakeVllm(["fake-chat"]) as twin, two(upstream.url, twin.url) as gateway:
        for server in (upstream, twin):
            server.behave(PATH, faults.unavailable(retry_after="7"))
        async with gateway.client() as client:
            for _ in range(3):
                answer, seconds = await timed(client)
                refused(answer, 503)
                assert answer.headers["retry-after"] == "7"
                assert seconds < 2


async def test_a_backend_that_lists_models_and_fails_to_chat_is_found_out(upstream):
    """ "Healthy" is what answers on the path of traffic, not what lists models."""
    async with FakeVllm(["fake-chat"]) as sick, two(upstream.url, sick.url) as gateway:
        sick.behave(PATH, faults.answers_with(502, b"<html>Bad gateway</html>"))
        async with gateway.client() as client:
            answers = [await chat(client) for _ in range(60)]
            assert {answer.status_code for answer in answers} == {200}
            assert asked(sick) == 5  # breaker_failures
            assert all(one.up for one in gateway.application.discovery.servers)
            await until(lambda: probes(sick) >= 1, "a probe")
            assert await state(gateway, sick) != "closed"
            sick.reset()
            async with asyncio.timeout(20):
                while await state(gateway, sick) != "closed":
                    await asyncio.sleep(0.02)


async def test_streams_that_die_open_the_breaker(upstream):
    """Their callers get an error event; those after them get another backend."""
    async with FakeVllm(["fake-chat"]) as dying:
        dying.behave(PATH, faults.resets_after(events=2))
        backends = dying.url, {"url": upstream.url, "priority": 1}
        async with two(*backends, breaker_failures=3) as gateway, gateway.client() as client:
            for _ in range(3):
                answer = await chat(client, stream=True)
                assert b'"error"' in answer.content
            answer = await chat(client, stream=True)
            assert b'"error"' not in answer.content
            assert asked(dying) == 3


@pytest.mark.parametrize("status", [400, 404, 409, 422])
async def test_callers_mistakes_never_open_a_breaker(upstream, status):
    """However many there are, each is asked once and told to its caller."""
    async with FakeVllm(["fake-chat"]) as twin, two(upstream.url, twin.url) as gateway:
        for server in (upstream, twin):
            server.behave(PATH, faults.vllm_error(status, "your mistake"))
        async with gateway.client() as client:
            for _ in range(12):
                refused(await chat(client), 400 if status == 422 else status)
        assert asked(upstream) + asked(twin) == 12
        for server in (upstream, twin):
            assert await state(gateway, server) == "closed"


async def test_callers_who_leave_never_open_a_breaker(upstream):
    """Impatience says nothing of a server."""
    async with FakeVllm(["fake-chat"]) as twin, two(upstream.url, twin.url) as gateway:
        for server in (upstream, twin):
            server.behave(PATH, faults.hangs_before_head())

        async def impatient(client: httpx.AsyncClient) -> None:
            with pytest.raises(httpx.ReadTimeout):
                await client.post(PATH, json=CHAT, timeout=0.2)

        async with gateway.client() as client:
            for _ in range(2):
                await asyncio.gather(*(impatient(client) for _ in range(6)))
        backends = gateway.application.catalog.get("fake-chat").backends
        await until(lambda: all(one.load.in_flight == 0 for one in backends), "their ends")
        for server in (upstream, twin):
            assert await state(gateway, server) == "closed"


async def test_retries_have_a_budget(upstream):
    """When everything fails, the servers aren't asked much more often than callers ask."""
    async with (
        FakeVllm(["fake-chat"]) as twin,
        two(upstream.url, twin.url, retry_reserve=5, breaker_failures=1000) as gateway,
    ):
        for server in (upstream, twin):
            server.behave(PATH, faults.vllm_error(500))
        async with gateway.client() as client:
            for _ in range(50):
                refused(await chat(client), 500)
        sent = asked(upstream) + asked(twin)
        assert 50 < sent <= 50 + 5 + 10 + 10  # and one a second
        spared = gateway.metric(
            "understudy_retries_refused_total", gen_ai_request_model="fake-chat"
        )
        assert spared == 100 - sent


async def test_the_answer_can_say_who_gave_it(upstream):
    """Where that is opted into; the span always does, and counts what was tried before."""
    async with FakeVllm(["quantized"]) as other:
        backends = (
            {"url": other.url, "model": "quantized"},
            {"url": upstream.url, "priority": 1},
        )
        async with two(*backends, served_by_header=True) as gateway, gateway.client() as client:
            answer = await chat(client)
            assert answer.headers["x-understudy-backend"] == other.root_url
            span = await gateway.span("chat fake-chat")
            assert span.attributes["server.port"] == other.port
            assert span.attributes["understudy.backend.id"] == "vllm"
            assert span.attributes["understudy.backend.model"] == "quantized"
            assert "http.request.resend_count" not in span.attributes
            other.behave(PATH, faults.vllm_error(500))
            answer = await chat(client)
            assert answer.headers["x-understudy-backend"] == upstream.root_url
            await until(lambda: len(gateway.spans()) >= 5, "the spans")
            calls = [one for one in gateway.spans() if one.name == "chat fake-chat"]
            assert [one.attributes.get("http.request.resend_count") for one in calls] == [
                None,
                None,
                1,
            ]
            assert calls[-1].attributes["understudy.backend.id"] == "vllm-2"
        async with two(*backends) as gateway, gateway.client() as client:
            assert "x-understudy-backend" not in (await chat(client)).headers


async def test_the_gateway_s_own_calls_choose_alike(upstream):
    """A response goes where its chat completion would have gone, around the dead as well."""
    async with FakeVllm(["fake-chat"]) as twin, two(upstream.url, twin.url) as gateway:
        async with gateway.client() as client:
            await twin.stop()
            for stream in (False, True) * 5:
                body = {"model": "fake-chat", "input": "hi", "stream": stream, "store": False}
                answer = await client.post("/v1/responses", json=body)
                assert answer.status_code == 200
                assert b"Paris" in answer.content
        assert await state(gateway, twin) != "closed"


async def test_what_is_in_flight_is_measured(upstream):
    """A gauge for each server, looked at every second."""
    upstream.behave(PATH, faults.slow(before_head=2.5))
    labels = {"server_address": HOST, "server_port": str(upstream.port)}

    def in_flight() -> float:
        return gateway.metric("understudy_upstream_in_flight", **labels)

    async with two(upstream.url) as gateway, gateway.client() as client:
        tasks = [asyncio.create_task(chat(client)) for _ in range(3)]
        await until(lambda: in_flight() == 3, "three in flight")
        await asyncio.gather(*tasks)
        await until(lambda: in_flight() == 0, "none in flight")


async def test_what_vllm_says_of_its_queue_decides(upstream):
    """A server that others keep busy gets less, though this gateway has sent it nothing."""

    text = (
        b"# TYPE vllm:num_requests_running gauge\n"
        b'vllm:num_requests_running{engine="0",model_name="fake-chat"} 40.0\n'
        b'vllm:num_requests_waiting{engine="0",model_name="fake-chat"} 60.0\n'
        b'vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 60.0\n'
    )
    async with FakeVllm(["fake-chat"]) as busy, two(upstream.url, busy.url) as gateway:
        busy.behave("/metrics", faults.answers_with(200, text, content_type="text/plain"))
        loads = {
            one.server.port: one.load
            for one in gateway.application.catalog.get("fake-chat").backends
        }
        gateway.application.discovery._prober._next_load.clear()  # ask now, not in a minute
        await until(lambda: loads[busy.port].estimate == 100, "its queue")
        async with gateway.client() as client:
            for _ in range(20):
                assert (await chat(client)).status_code == 200
        assert (asked(upstream), asked(busy)) == (20, 0)


async def test_an_only_backend_is_known_to_work_again_though_nobody_calls(upstream):
    """It is probed as others are, so that operators aren't told of what is over."""
    async with two(upstream.url) as gateway:
        async with gateway.client() as client:
            await upstream.stop()
            assert (await chat(client)).status_code == 503
            assert await state(gateway, upstream) != "closed"
            await upstream.start()
        async with asyncio.timeout(20):
            while await state(gateway, upstream) != "closed":
                await asyncio.sleep(0.05)
    assert asked(upstream) == 0
