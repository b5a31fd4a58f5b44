"""Whatever a tool server does, the gateway says so in words, soon, and with nothing left behind."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import pytest

from adapters.mcp import McpServer
from gateway.http.asgi import Receive, Scope, Send
from gateway.ports import ToolServerAddress, ToolServerFailed, ToolSession
from gateway.settings import ToolSettings
from tests.support.gateway import HOST, free_port
from tests.support.inprocess import until
from tests.support.tool_servers import (
    INITIALIZED,
    OddServing,
    Reply,
    Serving,
    ToolServing,
    answer,
    answer_json,
    result,
    tool,
)

pytestmark = [pytest.mark.anyio, pytest.mark.alone]

SOON = 4.0
LIMITS: dict[str, Any] = {
    "connect_seconds": 0.6,
    "list_seconds": 0.6,
    "call_seconds": 0.6,
    "close_seconds": 0.3,
    "max_tools": 50,
    "max_message_bytes": 100_000,
}


@pytest.fixture(autouse=True)
async def nothing_is_left_behind() -> AsyncIterator[None]:
    """No task of a session outlives it."""
    yield
    names = {task.get_name() for task in asyncio.all_tasks()}
    assert not {name for name in names if name.startswith("mcp-")}


def at(url: str, **more: Any) -> ToolServerAddress:
    return ToolServerAddress(label="odd", url=url, trusted=True, **more)


@asynccontextmanager
async def session_with(serving: Serving, **settings: Any) -> AsyncIterator[ToolSession]:
    way = McpServer(ToolSettings(**{**LIMITS, **settings}))
    async with way.open(at(serving.url)) as session:
        yield session


async def refusal(url: str, address: ToolServerAddress | None = None, **settings: Any) -> Any:
    """How opening a session fails, which it does soon."""
    way = McpServer(ToolSettings(**{**LIMITS, **settings}))
    started = monotonic()
    with pytest.raises(ToolServerFailed) as raised:
        async with way.open(address or at(url)):
            pass
    assert monotonic() - started < SOON
    return raised.value


async def failed_call(serving: Serving, **settings: Any) -> ToolServerFailed:
    """How a call fails, which it does soon, and so does leaving."""
    started = monotonic()
    async with session_with(serving, **settings) as session:
        with pytest.raises(ToolServerFailed) as raised:
            await session.call_tool("echo", {})
    assert monotonic() - started < SOON
    return raised.value


# -- opening -------------------------------------------------------------------------------------


async def test_one_that_is_down():
    """No connection; the message has no address."""
    failed = await refusal(f"http://{HOST}:{free_port()}/mcp")
    assert failed.message == "The tool server 'odd' failed: no connection came about."
    assert failed.status is None


async def test_one_whose_name_is_unknown():
    """The name isn't there."""
    failed = await refusal("http://no-such-host.invalid/mcp", connect_seconds=10)
    assert "the host's name" in failed.message


async def test_one_that_never_says_anything():
    """It takes the connection, and that is all."""

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)
        writer.close()

    server = await asyncio.start_server(silent, HOST, 0)
    port = server.sockets[0].getsockname()[1]
    failed = await refusal(f"http://{HOST}:{port}/mcp")
    assert "within 0.6 seconds" in failed.message
    server.close()


@pytest.mark.parametrize(
    "words",
    [b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{", b"\x00"],
)
async def test_one_that_speaks_something_else(words: bytes):
    """It isn't HTTP, or breaks off."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(words)
        writer.close()

    server = await asyncio.start_server(speak, HOST, 0)
    failed = await refusal(f"http://{HOST}:{server.sockets[0].getsockname()[1]}/mcp")
    assert failed.message.startswith("The tool server 'odd' failed: ")
    server.close()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 429, 500, 503])
async def test_one_that_refuses(status: int):
    """The status is kept, also where the older transport was tried in vain."""

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await answer(send, status, b"<h1>No</h1>", "text/html")

    async with Plain(refuse) as serving:
        failed = await refusal(serving.url)
    assert failed.status == status
    assert str(status) in failed.message


async def test_one_that_is_a_login_page():
    """200 and HTML."""

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await answer(send, 200, b"<form>Log in</form>", "text/html")

    async with Plain(page) as serving:
        failed = await refusal(serving.url)
    assert "text/html" in failed.message


async def test_one_of_another_version_of_the_protocol():
    """That nobody here knows."""

    async def other(message: dict[str, Any], send: Send) -> None:
        await result(send, message, {**INITIALIZED, "protocolVersion": "1999-01-01"})

    async with OddServing(initialize=other) as serving:
        failed = await refusal(serving.url)
    assert "broke the protocol" in failed.message


async def test_one_with_an_error_of_its_own():
    """Its words are passed on, cut short."""

    async def no(message: dict[str, Any], send: Send) -> None:
        error = {"code": -32000, "message": "Tenant is suspended" + "!" * 10_000}
        await answer_json(send, {"jsonrpc": "2.0", "id": message["id"], "error": error})

    async with OddServing(initialize=no) as serving:
        failed = await refusal(serving.url)
    assert "Tenant is suspended" in failed.message
    assert len(failed.message) < 1000
    assert failed.code == -32000


# -- redirects -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_one_that_redirects_elsewhere(status: int, scheme: str):
    """To the cloud's metadata, say: nobody goes there, least of all with the token."""
    async with ToolServing() as target:
        place = target.url.replace("http:", f"{scheme}:")

        async def redirect(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                headers = [(b"location", place.encode())]
                await answer(send, status, b"", headers=headers)

        async with Plain(redirect) as serving:
            address = at(serving.url, headers={"authorization": "Bearer sesame"})
            failed = await refusal("", address)
        assert target.requests == []
    assert failed.message == (
        "The tool server 'odd' failed: it redirects elsewhere, which is not followed."
    )
    assert failed.status == status


async def test_one_that_redirects_to_its_own_other_path():
    """As frameworks do for a slash at the end: that is followed."""
    async with ToolServing() as serving:
        inner = serving._app

        async def moved(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http" and scope["path"] == "/old":
                await answer(send, 307, b"", headers=[(b"location", b"/mcp")])
            else:
                await inner(scope, receive, send)

        serving._app = moved
        serving.path = "/old"
        async with session_with(serving) as session:
            assert (await session.call_tool("echo", {"text": "a"})).text == "a"


async def test_one_that_redirects_for_ever():
    """Three times are enough."""

    async def again(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await answer(send, 307, b"", headers=[(b"location", b"/mcp")])

    async with Plain(again) as serving:
        failed = await refusal(serving.url)
        assert len(serving.requests) < 20
    assert failed.message.startswith("The tool server 'odd' failed: ")


# -- the older transport -------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", ["http://169.254.169.254/latest", "//example.com/", "\x00"])
async def test_one_that_names_another_place_for_messages(endpoint: str):
    """The older transport lets the server say where messages go; they go to the server alone."""

    async def events(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["method"] == "POST":
            await answer(send, 405, b"")
            return
        await begin_events(send)
        await send_event(send, endpoint, "endpoint")
        await asyncio.sleep(10)

    async with Plain(events) as serving:
        failed = await refusal(serving.url)
    assert "169.254" not in failed.message


async def test_one_that_refuses_a_message_of_the_older_transport():
    """The answer would come another way, and never does: the call fails at once all the same."""
    async with ToolServing("sse") as serving:
        inner = serving._app

        async def refuses(scope: Scope, receive: Receive, send: Send) -> None:
            calls = [one for one in serving.requests if b'"tools/call"' in one["body"]]
            if scope["type"] == "http" and scope["method"] == "POST":
                message = await receive()
                if b'"tools/call"' in message["body"]:
                    await answer(send, 403, b"")
                    return

                async def again() -> Any:
                    return message

                await inner(scope, again, send)
            else:
                await inner(scope, receive, send)
            assert calls == []

        serving._app = refuses
        started = monotonic()
        failed = await failed_call(serving, call_seconds=30)
    assert monotonic() - started < SOON
    assert failed.status == 403


# -- lists ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pages", "words"),
    [
        (lambda _: {"tools": [tool("a")], "nextCursor": "same"}, "round in circles"),
        (lambda n: {"tools": [tool("a")], "nextCursor": f"c{n}"}, "more than 200 pages"),
        (lambda n: {"tools": [tool(f"t{n}")], "nextCursor": f"c{n}"}, "more than 50 tools"),
        (lambda _: {"tools": [tool(f"t{n}") for n in range(51)]}, "more than 50 tools"),
        (lambda _: {"tools": [tool(f"t{n}") for n in range(10**5)]}, "larger than the gateway"),
        (lambda _: {"tools": [tool("a", description="x" * 70_000)]}, "more than 65536 bytes"),
        (lambda _: {"tools": [tool("n" * 300)]}, "name is empty or longer"),
        (lambda _: {"tools": [tool("")]}, "name is empty or longer"),
        (lambda _: {"tools": [{"name": "a"}]}, "isn't what the protocol says"),
        (lambda _: {"tools": "all of them"}, "isn't what the protocol says"),
        (lambda _: {"tools": [tool("a", inputSchema=[])]}, "isn't what the protocol says"),
        (lambda _: [], "failed"),
    ],
)
async def test_one_with_an_odd_list(pages: Any, words: str):
    """Cyclic cursors, new ones for ever, a million tools, giant schemas, none of it."""
    number = iter(range(10**6))

    async def listed(message: dict[str, Any], send: Send) -> None:
        await result(send, message, pages(next(number)))

    async with (
        OddServing(tools_list=listed) as serving,
        session_with(serving, list_seconds=30) as session,
    ):
        with pytest.raises(ToolServerFailed, match=words):  # not that the time was over
            await session.list_tools()


async def test_one_that_lists_for_ever():
    """The time for the list ends it."""

    async def listed(message: dict[str, Any], send: Send) -> None:
        await asyncio.sleep(10)

    async with OddServing(tools_list=listed) as serving, session_with(serving) as session:
        with pytest.raises(ToolServerFailed, match=r"didn't list its tools within 0\.6"):
            await session.list_tools()


# -- calls ---------------------------------------------------------------------------------------


async def begin_events(send: Send) -> None:
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def send_event(send: Send, data: str, name: str = "message", more: str = "") -> None:
    event = f"event: {name}\ndata: {data}\n{more}\n"
    await send({"type": "http.response.body", "body": event.encode(), "more_body": True})


async def never(message: dict[str, Any], send: Send) -> None:
    await asyncio.sleep(10)


async def comments_for_ever(message: dict[str, Any], send: Send) -> None:
    await begin_events(send)
    while True:
        await send({"type": "http.response.body", "body": b": hi\n\n", "more_body": True})
        await asyncio.sleep(0.02)


async def notes_for_ever(message: dict[str, Any], send: Send) -> None:
    note = {
        "jsonrpc": "2.0",
        "method": "notifications/message",
        "params": {"level": "info", "data": 1},
    }
    await begin_events(send)
    while True:
        await send_event(send, json.dumps(note))
        await asyncio.sleep(0.02)


async def asks_back_for_ever(message: dict[str, Any], send: Send) -> None:
    await begin_events(send)
    for number in range(10**6):
        await send_event(send, json.dumps({"jsonrpc": "2.0", "id": number, "method": "ping"}))
        await asyncio.sleep(0.02)


async def wrong_id(message: dict[str, Any], send: Send) -> None:
    await result(send, {"id": 4711}, {"content": []})


async def garbage(message: dict[str, Any], send: Send) -> None:
    await answer(send, 200, b'{"jsonrpc": "2.0", "id": ')


async def nested(message: dict[str, Any], send: Send) -> None:
    await answer(send, 200, b"[" * 40_000)


async def not_utf8(message: dict[str, Any], send: Send) -> None:
    await answer(send, 200, b'{"jsonrpc": "2.0", "id": 1, "result": "\xff"}')


async def garbage_event(message: dict[str, Any], send: Send) -> None:
    await begin_events(send)
    await send_event(send, "{nonsense")
    await asyncio.sleep(10)


async def html(message: dict[str, Any], send: Send) -> None:
    await answer(send, 200, b"<h1>Bad gateway</h1>", "text/html")


async def accepted(message: dict[str, Any], send: Send) -> None:
    await answer(send, 202, b"")


async def empty(message: dict[str, Any], send: Send) -> None:
    await answer(send, 200, b"")


async def other_shape(message: dict[str, Any], send: Send) -> None:
    await result(send, message, {"content": [{"type": "text"}]})


async def wants_input(message: dict[str, Any], send: Send) -> None:
    await result(send, message, {"resultType": "input_required", "inputRequests": {}})


async def huge(message: dict[str, Any], send: Send) -> None:
    text = {"type": "text", "text": "x" * 3_000_000}
    await result(send, message, {"content": [text]})


async def huge_for_ever(message: dict[str, Any], send: Send) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for _ in range(300):  # uvicorn swallows what nobody reads, so "for ever" has an end here
        await send({"type": "http.response.body", "body": b" " * 65_536, "more_body": True})
        await asyncio.sleep(0.001)


async def huge_event(message: dict[str, Any], send: Send) -> None:
    await begin_events(send)
    await send_event(send, "x" * 3_000_000)
    await asyncio.sleep(10)


BOMB = gzip.compress(b" " * 5_000_000)


async def bomb(message: dict[str, Any], send: Send) -> None:
    await answer(send, 200, BOMB, headers=[(b"content-encoding", b"gzip")])


async def ends_without(message: dict[str, Any], send: Send) -> None:
    await begin_events(send)
    await send({"type": "http.response.body", "body": b": bye\n\n"})


async def to_be_continued(message: dict[str, Any], send: Send) -> None:
    """Ends, and says to come back in a year."""
    await begin_events(send)
    await send_event(send, "", more="id: 7\nretry: 31536000000\n")
    await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (never, "didn't answer the call of 'echo' within 0.6 seconds"),
        (comments_for_ever, "within 0.6 seconds"),
        (notes_for_ever, "within 0.6 seconds"),
        (asks_back_for_ever, "within 0.6 seconds"),
        (wrong_id, "within 0.6 seconds"),
        (garbage, "not JSON"),
        (nested, "not JSON"),
        (not_utf8, "not JSON"),
        (garbage_event, "not JSON"),
        (html, "text/html"),
        (accepted, "202"),
        (empty, "not JSON"),
        (other_shape, "isn't what the protocol says"),
        (wants_input, "isn't what the protocol says"),
        (huge, "larger than the gateway reads"),
        (huge_for_ever, "larger than the gateway reads"),
        (huge_event, "failed"),
        (bomb, "compressed"),
        (ends_without, "before its answer was complete"),
        (to_be_continued, "within 0.6 seconds"),
    ],
    ids=lambda one: one.__name__ if callable(one) else "",
)
async def test_one_with_an_odd_answer(reply: Reply, words: str, caplog: pytest.LogCaptureFixture):
    """The call fails with words that say why; the session is of use for the next."""
    caplog.set_level(logging.CRITICAL, "mcp")
    async with OddServing(tools_call=reply) as serving:
        failed = await failed_call(serving)
        assert words in failed.message
        assert failed.message.startswith("The tool server 'odd' failed: ")
        async with session_with(serving) as session:
            with pytest.raises(ToolServerFailed):
                await session.call_tool("echo", {})
            assert [one.name for one in await session.list_tools()] == ["echo"]


@pytest.mark.parametrize("kind", ["json", "events"])
async def test_one_that_dies_in_the_middle_of_a_call(kind: str):
    """The call fails at once; others of the same session are not told a tale."""
    async with OddServing() as serving:

        async def dies(message: dict[str, Any], send: Send) -> None:
            if kind == "events":
                await begin_events(send)
            else:
                headers = [(b"content-type", b"application/json"), (b"content-length", b"999")]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await send({"type": "http.response.body", "body": b"{", "more_body": True})
            await asyncio.sleep(0.05)
            serving.drop()

        serving._replies["tools/call"] = dies
        started = monotonic()
        failed = await failed_call(serving, call_seconds=30)
    assert monotonic() - started < SOON
    assert "failed: " in failed.message


async def test_one_whose_schema_takes_for_ever_to_check():
    """A pattern that backtracks for years is nobody's here to run."""
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}}

    async def listed(message: dict[str, Any], send: Send) -> None:
        await result(send, message, {"tools": [tool("echo", outputSchema=schema)]})

    async def called(message: dict[str, Any], send: Send) -> None:
        content = {"content": [], "structuredContent": {"a": "a" * 40 + "!"}}
        await result(send, message, content)

    async with (
        OddServing(tools_list=listed, tools_call=called) as serving,
        session_with(serving) as session,
    ):
        await session.list_tools()
        output = await session.call_tool("echo", {})
    assert "aaa" in output.text


async def test_one_that_never_takes_a_goodbye():
    """Leaving takes a bounded time."""

    async def stuck(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] != "POST":
            await asyncio.sleep(20)
        else:
            await inner(scope, receive, send)

    async with OddServing() as serving:
        inner = serving._app
        serving._app = stuck
        async with session_with(serving):
            started = monotonic()
        assert monotonic() - started < 2
        assert [one for one in serving.requests if one["method"] == "DELETE"]


async def test_one_that_is_slow_does_not_hold_up_the_others():
    """The event loop goes on while a server sends a lot."""
    async with (
        OddServing(tools_call=huge_for_ever) as odd,
        ToolServing() as good,
        session_with(odd) as first,
        session_with(good) as second,
    ):
        bad = asyncio.create_task(first.call_tool("echo", {}))
        started = monotonic()
        assert (await second.call_tool("echo", {"text": "a"})).text == "a"
        assert monotonic() - started < 2
        with pytest.raises(ToolServerFailed):
            await bad


async def test_a_caller_that_leaves_while_it_is_slow():
    """Cancelling the call ends the waiting at once, and the server learns of it."""
    async with (
        OddServing(tools_call=never) as serving,
        session_with(serving, call_seconds=30) as session,
    ):
        call = asyncio.create_task(session.call_tool("echo", {}))
        await until(lambda: bool(serving.said("tools/call")), "the call")
        started = monotonic()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert monotonic() - started < 2
        await until(lambda: bool(serving.said("notifications/cancelled")), "the notice")


class Plain(Serving):
    """An application without a lifespan of its own."""

    def __init__(self, app: Any) -> None:
        async def whole(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "lifespan":
                await app(scope, receive, send)
                return
            for _ in range(2):
                message = await receive()
                await send({"type": f"{message['type']}.complete"})

        super().__init__(whole)
