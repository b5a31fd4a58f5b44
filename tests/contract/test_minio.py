"""What is particular to an S3 server: the way to it, its refusals, its unfinished uploads. The rest
is in test_object_store.py."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
import traceback
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from adapters.minio import MinioObjectStore
from gateway.errors import (
    GatewayError,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamUnreachable,
)
from gateway.ports import ObjectMissing
from gateway.settings import ObjectSettings, SettingsError
from tests.real.s3.server import S3Server
from tests.support.gateway import free_port
from tests.support.s3 import HOST, relay

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
KEY = "default/files/file-ab12/content"
SECRET = "a-secret-that-no-message-shows"
FOREIGN = "what the server wrote"
SHORT = {"connect_seconds": 0.9, "stall_seconds": 1.0}
LONG = {"connect_seconds": 5.0, "stall_seconds": 30.0}


def bucket() -> str:
    return f"test-{uuid.uuid4().hex}"


@asynccontextmanager
async def store_on(
    endpoint: str, *, limits: dict[str, float] = LONG, **settings: Any
) -> AsyncIterator[MinioObjectStore]:
    """A store that was not started."""
    given = {
        "endpoint": endpoint,
        "access_key": "understudy-tests",
        "secret_key": SECRET,
        "secure": False,
        "bucket": bucket(),
        **settings,
    }
    store = MinioObjectStore(ObjectSettings(kind="minio", **given), **limits)
    try:
        yield store
    finally:
        await store.aclose()


async def some(size: int) -> AsyncIterator[bytes]:
    for start in range(0, size, 65536):
        yield b"x" * min(65536, size - start)


async def whole(store: MinioObjectStore, key: str = KEY) -> bytes:
    return b"".join([block async for block in store.read(key)])


CALLS: dict[str, Callable[[MinioObjectStore], Any]] = {
    "start": lambda store: store.start(),
    "put": lambda store: store.put(KEY, some(10)),
    "full put": lambda store: store.put(KEY, some(5 * MIB)),
    "large put": lambda store: store.put(KEY, some(6 * MIB)),
    "read": whole,
    "size": lambda store: store.size(KEY),
    "delete": lambda store: store.delete([KEY]),
    "list": lambda store: anext(store.list("default/")),
    "sweep": lambda store: store.sweep(0),
}
EVERY_CALL = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


async def refused(call: Any, kind: type[UpstreamError], within: float = 20) -> GatewayError:
    """It raises this, in time, and tells nobody the secret, an address or a foreign text."""
    async with asyncio.timeout(within):
        with pytest.raises(kind) as raised:
            await call
    assert SECRET not in "".join(traceback.format_exception(raised.value))
    assert HOST not in raised.value.message
    assert FOREIGN not in raised.value.message
    return raised.value


# A server that is not there, or not well.


@pytest.mark.alone
@EVERY_CALL
async def test_a_server_that_is_not_there_is_said_to_be_unreachable(call):
    """At once, by every call."""
    async with store_on(f"{HOST}:{free_port()}") as store:
        await refused(call(store), UpstreamUnreachable, within=3)


@asynccontextmanager
async def silent_server() -> AsyncIterator[str]:
    """It takes connections, reads next to nothing and says nothing."""
    leave = asyncio.Event()

    async def silent(reader, writer) -> None:
        await leave.wait()
        writer.close()

    server = await asyncio.start_server(silent, HOST, 0, limit=1024)
    try:
        yield f"{HOST}:{server.sockets[0].getsockname()[1]}"
    finally:
        leave.set()
        server.close()


@asynccontextmanager
async def ticking() -> AsyncIterator[list[float]]:
    """How long the event loop was held each time, in seconds."""
    held: list[float] = []

    async def tick() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.01)
            held.append(time.perf_counter() - before)

    task = asyncio.create_task(tick())
    try:
        yield held
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.alone
@EVERY_CALL
async def test_a_server_that_never_answers_holds_nobody_up(call):
    """The caller hears of it after one time limit, and the event loop goes on meanwhile."""
    async with (
        silent_server() as endpoint,
        store_on(endpoint, limits=SHORT, region="us-east-1") as store,
        ticking() as held,
    ):
        await refused(call(store), UpstreamTimeout, within=2)
    assert max(held) < 0.6


@pytest.mark.alone
async def test_a_server_that_takes_no_connections_is_unreachable():
    """Its queue is full, as where a firewall drops packets; that is waited for once."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind((HOST, 0))
        listener.listen(0)
        for one in (first, second):
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        endpoint = f"{HOST}:{listener.getsockname()[1]}"
        async with store_on(endpoint, limits=SHORT, region="us-east-1") as store:
            started = time.monotonic()
            await refused(store.size(KEY), UpstreamUnreachable, within=1.8)
            assert time.monotonic() - started > 0.8


@pytest.mark.alone
async def test_many_calls_to_a_hung_server_end_in_time():
    """Also those that wait for a thread."""
    async with (
        silent_server() as endpoint,
        store_on(endpoint, limits=SHORT, threads=2, region="us-east-1") as store,
        asyncio.timeout(8),
    ):
        results = await asyncio.gather(
            *(store.size(KEY) for _ in range(20)), return_exceptions=True
        )
    assert all(isinstance(one, UpstreamTimeout | UpstreamUnavailable) for one in results)
    assert any(isinstance(one, UpstreamUnavailable) for one in results)


async def test_a_reader_leaves_a_hung_server_at_once(s3: S3Server):
    """Its thread is free again, too: it doesn't wait for the time limit."""
    async with store_on(s3.endpoint, threads=1) as store:
        await store.start()
        await store.put(KEY, some(24 * MIB))
        reader = store.read(KEY)
        await anext(reader)
        s3.pause()
        try:
            reading = asyncio.create_task(_drain(reader))
            await asyncio.sleep(0.3)
            assert not reading.done()
            reading.cancel()
            left, _ = await asyncio.wait({reading}, timeout=15)  # the pause ends it after 30 s
            assert left
        finally:
            s3.resume()
        async with asyncio.timeout(20):
            assert await store.size(KEY) == 24 * MIB


async def _drain(reader: AsyncIterator[bytes]) -> None:
    async for _ in reader:
        pass


async def test_a_part_may_take_longer_than_a_connection():
    """On a slow line; the limit for connecting isn't that for sending."""

    async def slow(reader, writer) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await asyncio.sleep(0.8)
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length))
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(slow, HOST, 0, limit=65536)
    try:
        async with store_on(
            f"{HOST}:{server.sockets[0].getsockname()[1]}",
            limits={"connect_seconds": 0.3, "stall_seconds": 5.0},
            region="us-east-1",
        ) as store:
            for _ in range(2):  # on a new connection, and on one that is used again
                assert await store.put(KEY, some(5 * MIB)) == 5 * MIB
    finally:
        server.close()


async def test_a_hung_server_and_a_caller_who_leaves(s3: S3Server):
    """A put that is cancelled while the server hangs leaves no part once the server goes on."""
    async with store_on(s3.endpoint) as store:
        await store.start()
        waits, go_on = asyncio.Event(), asyncio.Event()

        async def source() -> AsyncIterator[bytes]:
            yield b"x" * (6 * MIB)
            waits.set()
            await go_on.wait()
            yield b"x" * (12 * MIB)

        writing = asyncio.create_task(store.put(KEY, source()))
        await waits.wait()
        s3.pause()
        try:
            go_on.set()
            await asyncio.sleep(0.2)
            writing.cancel()
            await asyncio.sleep(0.1)
            assert not writing.done()  # it waits for the part that is on its way
        finally:
            s3.resume()
        with pytest.raises(asyncio.CancelledError):
            await writing
        with pytest.raises(ObjectMissing):
            await store.size(KEY)
        assert await store.sweep(0) == 0


async def test_a_server_that_comes_back_is_used_again():
    """The connections of before are dead; nobody notices."""
    with S3Server() as server:
        async with store_on(server.endpoint, bucket="files") as store:
            await store.start()
            await asyncio.gather(*(store.put(f"{KEY}{n}", some(100)) for n in range(8)))
            server.kill()
            await refused(store.size(f"{KEY}0"), UpstreamUnreachable)
            server.start()
            assert await store.size(f"{KEY}0") == 100
            assert await store.put(KEY, some(6 * MIB)) == 6 * MIB


async def test_an_answer_that_breaks_off_is_an_error(s3: S3Server):
    """Half an object is never taken for the whole."""
    async with store_on(s3.endpoint, bucket="cut") as store:
        await store.start()
        await store.put(KEY, some(4 * MIB))
        async with (
            relay(s3.endpoint, cut_after=2 * MIB) as cut,
            store_on(cut.endpoint, bucket="cut") as short,
        ):
            await refused(whole(short), UpstreamUnavailable)


# Refusals.


@pytest.mark.parametrize("region", [None, "us-east-1"])
@pytest.mark.parametrize("wrong", ["access_key", "secret_key"])
async def test_wrong_credentials_are_named_but_not_shown(s3: S3Server, wrong, region):
    """The settings to look at, and no more."""
    bad = "some-other-credential"
    async with store_on(s3.endpoint, region=region, **{wrong: bad}) as store:
        error = await refused(store.start(), UpstreamError)
        assert "objects.secret_key" in error.message
        assert bad not in error.message


async def test_a_bucket_that_went_is_named(s3: S3Server):
    """It was never made here."""
    async with store_on(s3.endpoint) as store:
        error = await refused(store.put(KEY, some(10)), UpstreamError)
        assert "objects.bucket" in error.message


def s3_error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>{FOREIGN}</Message></Error>".encode()


@asynccontextmanager
async def answering(answer: Callable[[str, str], tuple[int, str, bytes]]) -> AsyncIterator[str]:
    """A server that answers method and path with a status, a content type and a body."""

    async def serve(reader, writer) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                method, path, _ = head.decode("latin-1").split(" ", 2)
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length or 0))
                status, kind, body = answer(method, path)
                writer.write(
                    f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\n"
                    f"content-length: {len(body)}\r\n\r\n".encode()
                    + (b"" if method == "HEAD" else body)
                )
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    try:
        yield f"{HOST}:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def test_a_bucket_that_may_not_be_made_is_asked_for():
    """The message says which one, and what to do."""

    def answer(method: str, path: str) -> tuple[int, str, bytes]:
        if method == "PUT":
            return 403, "application/xml", s3_error("AccessDenied")
        return 404, "application/xml", s3_error("NoSuchBucket")

    async with answering(answer) as endpoint, store_on(endpoint, bucket="our-files") as store:
        error = await refused(store.start(), UpstreamError)
        assert "'our-files'" in error.message
        assert "s3:CreateBucket" in error.message


async def test_a_bucket_that_another_replica_makes_first_is_used():
    """Between the look and the making."""
    asked: list[str] = []

    def answer(method: str, path: str) -> tuple[int, str, bytes]:
        asked.append(method)
        if len(asked) == 1:
            return 404, "application/xml", s3_error("NoSuchBucket")
        if method == "PUT":
            return 409, "application/xml", s3_error("BucketAlreadyOwnedByYou")
        return 200, "application/xml", b"<Listing><Name>files</Name></Listing>"

    async with answering(answer) as endpoint, store_on(endpoint, region="us-east-1") as store:
        await store.start()
    assert asked == ["GET", "PUT", "GET"]


async def test_a_wrong_region_is_named():
    """Where the server has one of its own."""
    answer = (400, "application/xml", s3_error("AuthorizationHeaderMalformed"))
    async with (
        answering(lambda method, path: answer) as endpoint,
        store_on(endpoint, region="mars-1") as store,
    ):
        error = await refused(store.start(), UpstreamError)
        assert "objects.region" in error.message


@pytest.mark.parametrize(
    ("status", "kind", "body", "expected"),
    [
        (503, "application/xml", s3_error("SlowDown"), UpstreamUnavailable),
        (507, "application/xml", s3_error("XMinioStorageFull"), UpstreamUnavailable),
        (500, "application/xml", s3_error("InternalError"), UpstreamError),
        (403, "application/xml", s3_error("AccessDenied"), UpstreamError),
        (502, "text/html", b"<h1>Bad gateway</h1>", UpstreamUnavailable),
        (404, "text/html", b"<h1>a web site</h1>", UpstreamError),
        (403, "application/xml", b"<broken", UpstreamError),
        (404, "application/xml", b"\xff\xfe", UpstreamError),
    ],
)
@pytest.mark.parametrize("name", ["put", "read", "size", "list"])
async def test_any_refusal_is_an_upstream_error(name, status, kind, body, expected):
    """Also one that isn't S3's at all; what the server wrote stays inside."""
    async with (
        answering(lambda method, path: (status, kind, body)) as endpoint,
        store_on(endpoint, region="us-east-1") as store,
    ):
        call = CALLS[name]
        if name == "size" and status == 404:  # a HEAD's answer has no body to tell by
            with pytest.raises(ObjectMissing):
                await call(store)
            return
        error = await refused(call(store), UpstreamError)
        assert type(error) is expected


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"", b"\xff", b"plain text"])
async def test_a_listing_that_is_none_is_an_error(body):
    """Though its status is 200."""
    async with (
        answering(lambda method, path: (200, "application/xml", body)) as endpoint,
        store_on(endpoint, region="us-east-1") as store,
    ):
        error = await refused(store.start(), UpstreamError)
        assert "objects.endpoint" in error.message


async def test_parts_that_are_not_put_together_are_an_error():
    """A server may answer 200 first and fail afterwards; what it keeps of the upload is aborted."""
    asked: list[str] = []

    def answer(method: str, path: str) -> tuple[int, str, bytes]:
        asked.append(method)
        if method == "POST" and path.endswith("uploads="):
            return 200, "application/xml", b"<R><UploadId>u1</UploadId></R>"
        return 200, "application/xml", s3_error("InternalError") if method == "POST" else b""

    async with answering(answer) as endpoint, store_on(endpoint, region="us-east-1") as store:
        await refused(store.put(KEY, some(6 * MIB)), UpstreamError)
    assert asked == ["POST", "PUT", "PUT", "POST", "DELETE"]


async def test_a_server_that_is_busy_for_a_moment_is_asked_again():
    """503 once, as a server does that starts or sheds load."""
    asked: list[str] = []

    def answer(method: str, path: str) -> tuple[int, str, bytes]:
        asked.append(method)
        if len(asked) == 1:
            return 503, "application/xml", s3_error("SlowDown")
        return 200, "application/xml", b""

    async with answering(answer) as endpoint, store_on(endpoint, region="us-east-1") as store:
        assert await store.put(KEY, some(10)) == 10
    assert asked == ["PUT", "PUT"]


# Settings.


@pytest.mark.parametrize(
    ("named", "settings"),
    [
        ("endpoint", {"endpoint": None}),
        ("endpoint", {"endpoint": "http://minio:9000"}),
        ("endpoint", {"endpoint": "minio:9000/bucket"}),
        ("secret_key", {"secret_key": None}),
        ("bucket", {"bucket": "No Such Name"}),
        ("region", {"region": "no region"}),
        ("ca_file", {"secure": True, "ca_file": "/nowhere/ca.pem"}),
    ],
)
def test_a_setting_that_is_of_no_use_is_named(named, settings):
    """Before anything is sent."""
    given = {"endpoint": "minio:9000", "access_key": "a", "secret_key": SECRET, **settings}
    with pytest.raises(SettingsError) as raised:
        MinioObjectStore(ObjectSettings(kind="minio", **given))
    assert named in str(raised.value)
    assert SECRET not in str(raised.value)


async def test_a_bucket_may_be_part_of_the_host_name():
    """With path_style off, as some servers want it."""
    asked: list[str] = []

    def answer(method: str, path: str) -> tuple[int, str, bytes]:
        asked.append(path)
        return 200, "application/xml", b""

    async with answering(answer) as endpoint:
        port = endpoint.rpartition(":")[2]
        for path_style in (True, False):
            # *.localhost is this machine; with path_style the bucket is in the path instead.
            async with store_on(
                f"localhost:{port}", bucket="files", region="us-east-1", path_style=path_style
            ) as store:
                try:
                    await store.put(KEY, some(10))
                except UpstreamUnreachable:  # a resolver that doesn't know files.localhost
                    assert not path_style
    assert asked[0] == f"/files/{KEY}"
    assert asked[1:] in ([], [f"/{KEY}"])


# TLS.


def server_context(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert(HOST).configure_cert(context)
    return context


async def test_a_private_authority_is_trusted_where_it_is_named(
    s3: S3Server, private_ca: trustme.CA, tmp_path: Path
):
    """Every call goes over TLS, large puts too."""
    ca_file = tmp_path / "ca.pem"
    private_ca.cert_pem.write_to_path(str(ca_file))
    async with (
        relay(s3.endpoint, tls=server_context(private_ca)) as safe,
        store_on(safe.endpoint, secure=True, ca_file=str(ca_file)) as store,
    ):
        await store.start()
        assert await store.put(KEY, some(12 * MIB)) == 12 * MIB
        assert len(await whole(store)) == 12 * MIB
        async with aclosing(store.read(KEY)) as blocks:
            await anext(blocks)
        reading = asyncio.create_task(whole(store))
        await asyncio.sleep(0.02)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        assert await store.sweep(0) == 0
        await store.delete([KEY])
        assert [one async for one in store.list("default/")] == []


async def test_an_unknown_authority_is_never_trusted(s3: S3Server, private_ca: trustme.CA):
    """The message names the setting that would."""
    async with (
        relay(s3.endpoint, tls=server_context(private_ca)) as safe,
        store_on(safe.endpoint, secure=True) as store,
    ):
        error = await refused(store.start(), UpstreamUnreachable)
        assert "objects.ca_file" in error.message


async def test_a_server_without_tls_is_told_apart(s3: S3Server):
    """A secure store on a plain port."""
    async with store_on(s3.endpoint, secure=True) as store:
        error = await refused(store.start(), UpstreamUnreachable)
        assert "objects.secure" in error.message


# Connections.


async def test_a_reader_that_stops_early_frees_its_connection(s3: S3Server):
    """Closed, cancelled, or read to the end: no connection is left in use."""
    async with relay(s3.endpoint) as way, store_on(way.endpoint, threads=4) as store:
        await store.start()
        await store.put(KEY, some(8 * MIB))
        kept = way.open
        readers = [store.read(KEY) for _ in range(12)]
        for reader in readers:
            await anext(reader)
        assert way.open >= kept + 11
        for reader in readers:
            await reader.aclose()
        for _ in range(5):
            reading = asyncio.create_task(whole(store))
            await asyncio.sleep(0.02)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        deadline = time.monotonic() + 10
        while way.open > kept and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        assert way.open <= kept
        assert len(await whole(store)) == 8 * MIB
    assert way.open == 0


async def test_connections_are_used_again(s3: S3Server):
    """One after the other, many calls need one."""
    async with relay(s3.endpoint) as way, store_on(way.endpoint) as store:
        await store.start()
        for _ in range(5):
            await store.put(KEY, some(100_000))
            await whole(store)
            await store.size(KEY)
        assert way.open == 1


# Unfinished uploads.


async def test_uploads_of_dead_writers_are_swept(s3: S3Server):
    """Of this bucket, once they are old enough; the objects stay."""
    async with store_on(s3.endpoint, bucket="sweep") as store:
        await store.start()
        await store.put(KEY, some(10))
        client = store._client
        for number in range(3):
            upload = client._create_multipart_upload("sweep", f"{KEY}{number}", {})
            client._upload_part("sweep", f"{KEY}{number}", b"x" * 100, None, upload, 1)
        assert await store.sweep(60) == 0
        assert await store.sweep(0) == 3
        assert await store.sweep(0) == 0
        assert await store.size(KEY) == 10
