"""A caller's URL leads where the configuration lets it, and never into the private network by
another way: not by a redirect, an odd way to write an address, or a name that changes its mind."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from ipaddress import ip_address
from time import monotonic
from typing import Any

import pytest

from adapters.mcp import McpServer
from adapters.web import HttpFetcher
from gateway.errors import InvalidRequest
from gateway.http.asgi import Receive, Scope, Send
from gateway.ports import ToolServerAddress, ToolServerFailed
from gateway.settings import ToolSettings, UrlSettings
from gateway.urls import UrlPolicy, is_allowed_entry
from tests.support.expect import refused
from tests.support.inprocess import InProcessGateway
from tests.support.tool_servers import Serving, ToolServing, answer

pytestmark = pytest.mark.anyio

EVERYWHERE = UrlPolicy(["*"], "tools.allowed_hosts")


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://Tools.Example.com/mcp", "tools.example.com"),
        ("http://tools.example.com.:8080/mcp?a=b", "tools.example.com"),
        ("https://8.8.8.8/", "8.8.8.8"),
        ("https://[2606:4700::1111]/", "2606:4700::1111"),
        ("http://xn--bcher-kva.example/", "xn--bcher-kva.example"),
    ],
)
async def test_usual_urls_pass(url: str, host: str):
    """And the host is read from them."""
    assert EVERYWHERE.check(url, "url") == host


@pytest.mark.parametrize(
    "url",
    [
        *("file:///etc/passwd", "gopher://a.example/", "ftp://a.example/", "//a.example/", "a", ""),
        *("data:text/plain,hi", "unix:///run/docker.sock", "javascript:alert(1)", "http:///x"),
        *("https://user@a.example/", "https://user:pw@a.example/", "https://@a.example/"),
        *("http://127.0.0.1/", "http://10.1.2.3/", "http://192.168.0.1/", "http://172.16.0.1/"),
        *("http://169.254.169.254/latest", "http://0.0.0.0/", "http://224.0.0.1/"),
        *("http://100.64.0.1/", "http://100.100.100.200/", "http://168.63.129.16/"),
        *("http://[::1]/", "http://[::]/", "http://[fe80::1]/", "http://[fd00:ec2::254]/"),
        *("http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/", "http://[::127.0.0.1]/"),
        *("http://[64:ff9b::7f00:1]/", "http://[2002:7f00:1::]/", "http://[fe80::1%25eth0]/"),
        *("http://2130706433/", "http://0x7f000001/", "http://0x7f.1/", "http://017700000001/"),
        *("http://127.1/", "http://127.0.0.1./", "http://0/", "http://0177.0.0.1/"),
        *("http://a.example:0x50/", "http://a.example:99999/", "http://[::1/", "http://[]/"),
        *(
            "http://a.example\\@127.0.0.1/",
            "http://a.example /",
            "http://a\texample/",
            "http://ä.ex/",
        ),
        *(
            "http://a.example\x00/",
            "http://a..example/",
            "http://-/",
            "http://a.example%2f@b.example",
        ),
        *(
            "http://a.example/\r\nx: y",
            "http://" + "a" * 300 + ".example/",
            "http://a.ex/" + "a" * 9000,
        ),
    ],
)
async def test_odd_urls_do_not(url: str):
    """Even where every host is allowed; the message names the parameter."""
    with pytest.raises(InvalidRequest, match=r"Invalid 'tools\[0\].server_url'") as raised:
        EVERYWHERE.check(url, "tools[0].server_url")
    assert raised.value.param == "tools[0].server_url"


@pytest.mark.parametrize(
    ("entry", "url", "passes"),
    [
        ("tools.example.com", "https://tools.example.com/", True),
        ("tools.example.com", "https://TOOLS.example.com:8443/", True),
        ("tools.example.com", "https://a.tools.example.com/", False),
        ("tools.example.com", "https://tools.example.com.evil.example/", False),
        ("*.example.com", "https://a.b.example.com/", True),
        ("*.example.com", "https://example.com/", False),
        ("*.example.com", "https://notexample.com/", False),
        ("10.0.0.7", "http://10.0.0.7/", True),
        ("10.0.0.7", "http://10.0.0.8/", False),
        ("localhost", "http://localhost:1/", True),
        ("169.254.169.254", "http://169.254.169.254/", False),
    ],
)
async def test_a_host_must_be_listed(entry: str, url: str, passes: Any):
    """The refusal says which setting to change."""
    policy = UrlPolicy([entry], "urls.allowed_hosts")
    if passes:
        policy.check(url, "url")
        return
    with pytest.raises(InvalidRequest) as raised:
        policy.check(url, "url")
    if "169" not in entry:
        assert "'urls.allowed_hosts'" in raised.value.message
        assert raised.value.code == "host_not_allowed"


async def test_nothing_is_listed_by_default():
    """Callers then use connectors alone."""
    with pytest.raises(InvalidRequest, match="is not allowed"):
        UrlPolicy([], "tools.allowed_hosts").check("https://example.com/", "url")


@pytest.mark.parametrize(
    ("entry", "address", "passes"),
    [
        ("*", "8.8.8.8", True),
        ("*", "10.0.0.1", False),
        ("*.example.com", "10.0.0.1", False),
        ("a.example.com", "10.0.0.1", True),
        ("a.example.com", "127.0.0.1", True),
        ("a.example.com", "fd12::1", True),
        ("a.example.com", "::ffff:10.0.0.1", True),
        ("a.example.com", "169.254.169.254", False),
        ("a.example.com", "::ffff:169.254.169.254", False),
        ("a.example.com", "fe80::1", False),
        ("a.example.com", "100.100.100.200", False),
        ("a.example.com", "0.0.0.0", False),
        ("b.example.com", "8.8.8.8", False),
    ],
)
async def test_where_a_name_leads_is_checked_too(entry: str, address: str, passes: Any):
    """A private place only for a host that is listed by its very name; the cloud's never."""
    policy = UrlPolicy([entry], "tools.allowed_hosts")
    assert policy.admits("a.example.com", ip_address(address)) is passes


@pytest.mark.parametrize("entry", ["*", "*.example.com", "a.example.com", "10.0.0.7", "::1", "A.b"])
async def test_entries_that_can_stand_in_a_list(entry: str):
    """Hosts, domains, all."""
    assert is_allowed_entry(entry)


@pytest.mark.parametrize(
    "entry", ["", "*.", "a*.b", "**", "http://a.example", "a:80", "0x7f.1", "a b"]
)
async def test_entries_that_can_not(entry: str):
    """The start of the gateway fails with them."""
    assert not is_allowed_entry(entry)


# -- names that change their mind ----------------------------------------------------------------


class Names:
    """The name service of a test: each name has a list of answers, of which one is given a time."""

    def __init__(self, **answers: list[str]) -> None:
        self.asked: list[str] = []
        self._answers = answers

    async def getaddrinfo(self, host: str, port: int, **_: Any) -> list[Any]:
        self.asked.append(host)
        found = self._answers[host.partition(".")[0]]
        address = found.pop(0) if len(found) > 1 else found[0]
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (address, port))]


def resolve_by(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard asks these names; what it then connects to is an address, which needs none."""
    loop = asyncio.get_running_loop()
    usual = loop.getaddrinfo

    async def getaddrinfo(host: Any, port: Any, **options: Any) -> Any:
        if isinstance(host, str) and host.endswith(".example"):
            return await names.getaddrinfo(host, port, **options)
        return await usual(host, port, **options)

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize("address", ["127.0.0.1", "::ffff:127.0.0.1", "::1"])
async def test_a_public_name_at_a_private_address_is_not_connected_to(
    address: str, monkeypatch: pytest.MonkeyPatch
):
    """Not by the fetcher and not for a tool server."""
    names = Names(evil=[address])
    resolve_by(names, monkeypatch)
    async with ToolServing() as serving:
        url = f"http://evil.example:{serving.port}/mcp"
        with pytest.raises(InvalidRequest, match="no address that may be connected to"):
            await HttpFetcher(UrlSettings(allowed_hosts=["*"])).fetch(url, max_bytes=9, param="url")
        with pytest.raises(ToolServerFailed, match="no address that may be connected to"):
            async with McpServer(ToolSettings(allowed_hosts=["*"])).open(untrusted(url)):
                pass
        assert serving.requests == []
    assert names.asked


async def test_what_was_checked_is_what_is_connected_to(monkeypatch: pytest.MonkeyPatch):
    """A name is resolved once; what it says a moment later is not asked."""
    names = Names(tools=["127.0.0.1", "169.254.169.254"])
    resolve_by(names, monkeypatch)
    async with Serving(file_app) as serving:
        fetcher = HttpFetcher(UrlSettings(allowed_hosts=["tools.example"]))
        url = f"http://tools.example:{serving.port}/picture.png"
        page = await fetcher.fetch(url, max_bytes=99, param="url")
        await fetcher.aclose()
    assert page.data == b"content"
    assert names.asked == ["tools.example"]
    assert serving.requests[0]["headers"]["host"] == f"tools.example:{serving.port}"


def untrusted(url: str) -> ToolServerAddress:
    return ToolServerAddress(label="x", url=url)


async def test_a_tool_server_needs_a_listed_host():
    """A connector, which the configuration names, doesn't."""
    async with ToolServing() as serving:
        way = McpServer(ToolSettings())
        with pytest.raises(ToolServerFailed, match=r"tools\.allowed_hosts"):
            async with way.open(untrusted(serving.url)):
                pass
        assert serving.requests == []
        trusted = ToolServerAddress(label="x", url=serving.url, trusted=True)
        listed = McpServer(ToolSettings(allowed_hosts=["127.0.0.1"]))
        async with way.open(trusted), listed.open(untrusted(serving.url)):
            pass


# -- fetching ------------------------------------------------------------------------------------


async def file_app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        for _ in range(2):
            await send({"type": f"{(await receive())['type']}.complete"})
        return
    path = scope["path"]
    if path.startswith("/to/"):
        place = scope["query_string"]
        await answer(send, int(path[4:]), b"", headers=[(b"location", place)])
    elif path == "/endless":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(300):
            await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
            await asyncio.sleep(0.001)
    elif path == "/slow":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await asyncio.sleep(0.05)
    elif path == "/gone":
        await answer(send, 404, b"no")
    else:
        await answer(send, 200, b"content", "Image/PNG; charset=binary")


@pytest.fixture
async def files() -> AsyncIterator[Serving]:
    async with Serving(file_app, path="") as serving:
        yield serving


@pytest.fixture
async def fetcher() -> AsyncIterator[HttpFetcher]:
    settings = UrlSettings(allowed_hosts=["127.0.0.1"], timeout_seconds=0.8)
    made = HttpFetcher(settings)
    yield made
    await made.aclose()


async def test_a_file_is_read(files: Serving, fetcher: HttpFetcher):
    """With its type and its name; nothing of the gateway's own goes along."""
    page = await fetcher.fetch(f"{files.url}/a/b%20c.png?x=1", max_bytes=7, param="url")
    assert (page.data, page.media_type, page.filename) == (b"content", "image/png", "b c.png")
    [request] = files.requests
    assert set(request["headers"]) == {
        "host", "accept", "accept-encoding", "connection", "user-agent",
    }  # fmt: skip


async def test_a_redirect_is_followed_where_the_goal_may_be_named(
    files: Serving, fetcher: HttpFetcher
):
    """As pictures' servers do."""
    page = await fetcher.fetch(f"{files.url}/to/302?/other.png", max_bytes=99, param="url")
    assert page.filename == "other.png"


@pytest.mark.parametrize(
    "goal",
    [
        *("http://169.254.169.254/latest/meta-data", "http://localhost/", "file:///etc/passwd"),
        *("http://evil.example/", "//10.0.0.1/", "http://user:pw@127.0.0.1/", "http://[::1]/"),
    ],
)
async def test_a_redirect_elsewhere_is_not(goal: str, files: Serving, fetcher: HttpFetcher):
    """Its goal is checked like the URL."""
    with pytest.raises(InvalidRequest) as raised:
        await fetcher.fetch(f"{files.url}/to/302?{goal}", max_bytes=99, param="image_url")
    assert raised.value.param == "image_url"
    assert len(files.requests) == 1


@pytest.mark.alone
@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/to/307?/to/307?/to/307?/to/307?/to/307", "redirects more than 3 times"),
        ("/endless", "larger than 1000 bytes"),
        ("/slow", "within 0.8 seconds"),
        ("/gone", "answered with 404"),
    ],
)
async def test_what_can_not_be_read(path: str, words: str, files: Serving, fetcher: HttpFetcher):
    """Is a mistake in the request, told soon."""
    started = monotonic()
    with pytest.raises(InvalidRequest, match=words) as raised:
        await fetcher.fetch(files.url + path, max_bytes=1000, param="file_url")
    assert monotonic() - started < 3
    assert (raised.value.param, raised.value.code) == ("file_url", "url_not_readable")


async def test_a_server_that_is_down_is_a_mistake_in_the_request(fetcher: HttpFetcher):
    """The message has no address but the caller's."""
    with pytest.raises(InvalidRequest, match="no connection came about"):
        await fetcher.fetch("http://127.0.0.1:9/a", max_bytes=9, param="url")


# -- over HTTP -----------------------------------------------------------------------------------


async def test_the_api_refuses_them_as_callers_mistakes():
    """400 that names the parameter and the setting, on every route that takes a URL."""
    async with (
        ToolServing() as serving,
        InProcessGateway() as gateway,
        gateway.client() as client,
    ):
        group = {"toolgroup_id": "x", "provider_id": "model-context-protocol"}
        for url in (serving.url, "http://169.254.169.254/", "file:///etc/passwd"):
            endpoint = {"mcp_endpoint": {"uri": url}}
            answers = [
                await client.post("/v1/toolgroups", json={**group, **endpoint}),
                await client.get("/v1/tool-runtime/list-tools", params={"mcp_endpoint": url}),
                await client.post(
                    "/v1/tool-runtime/rag-tool/insert",
                    json={
                        "documents": [{"document_id": "a", "content": {"uri": url}}],
                        "vector_store_id": "vs_1",
                    },
                ),
            ]
            for one in answers:
                error = refused(one, 400)
                assert error["code"] in ("host_not_allowed", "invalid_url")
                assert "ur" in error["param"]
        assert serving.requests == []
