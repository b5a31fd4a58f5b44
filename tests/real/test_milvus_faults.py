"""The way to a real Milvus server: TLS, absence, silence, and coming back."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import pytest
from pymilvus import MilvusClient

from adapters.milvus import MilvusIndex
from gateway.errors import UpstreamError, UpstreamTimeout, UpstreamUnavailable
from gateway.ports import IndexedChunk, StoreIndex
from gateway.settings import VectorSettings
from tests.support.gateway import free_port

pytestmark = [pytest.mark.anyio, pytest.mark.alone]

STORE = StoreIndex(project="default", store_id="vs_faults", dimension=4, keyword=False)
CHUNK = IndexedChunk(id="a", attachment_id="f", text="", vector=[1.0, 0, 0, 0])
TOKEN = "somebody:sEcReT-tOkEn"


@asynccontextmanager
async def index_at(uri: str, tmp_path: Path, **settings) -> AsyncIterator[MilvusIndex]:
    made = MilvusIndex(
        VectorSettings(uri=uri, token=TOKEN, **{"timeout_seconds": 30, **settings}), tmp_path
    )
    try:
        yield made
    finally:
        await made.aclose()


class Relay:
    """A listener in front of the server that can go away and come back on the same port."""

    def __init__(self, uri: str, tls: ssl.SSLContext | None = None) -> None:
        self._target = urlsplit(uri)
        self._tls = tls
        self.port = free_port()
        self.silent = False
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, ssl=self._tls, reuse_address=True
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader, writer) -> None:
        there, back = await asyncio.open_connection(self._target.hostname, self._target.port)
        self._writers |= {writer, back}
        await asyncio.gather(self._copy(reader, back), self._copy(there, writer))

    async def _copy(self, reader, writer) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if not self.silent:
                    writer.write(data)
                    await writer.drain()
        self._writers.discard(writer)
        writer.transport.abort()


async def test_a_server_that_is_not_there_is_said_at_once(tmp_path):
    """Not before the first call, and without its address or the token."""
    async with index_at(f"http://127.0.0.1:{free_port()}", tmp_path) as index:
        began = time.monotonic()
        calls = [index.features(), index.create(STORE), index.search(STORE, [1.0, 0, 0, 0], 1)]
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert time.monotonic() - began < 5
        for error in errors:
            assert isinstance(error, UpstreamUnavailable)
            assert "127.0.0.1" not in error.message
            assert "sEcReT" not in error.message


async def test_it_comes_back_by_itself(milvus_server, tmp_path):
    """The same object works before, fails during and works after the server was away."""
    relay = Relay(milvus_server)
    async with index_at(f"http://127.0.0.1:{relay.port}", tmp_path) as index:
        with pytest.raises(UpstreamUnavailable):
            await index.features()
        async with relay:
            await index.create(STORE)
            await index.upsert(STORE, [CHUNK])
            await index.settle(STORE)
            assert len(await index.search(STORE, [1.0, 0, 0, 0], 5)) == 1
        for _ in range(3):
            began = time.monotonic()
            with pytest.raises(UpstreamUnavailable):
                await index.search(STORE, [1.0, 0, 0, 0], 5)
            assert time.monotonic() - began < 7
        async with relay:
            back = time.monotonic()
            while True:
                with contextlib.suppress(UpstreamUnavailable):
                    assert len(await index.search(STORE, [1.0, 0, 0, 0], 5)) == 1
                    break
                assert time.monotonic() - back < 5
                await asyncio.sleep(0.1)
            assert (await index.features()).engine.startswith("Milvus 2.")


async def test_a_silent_server_times_out(milvus_server, tmp_path):
    """Within the time limit, also for many at once."""
    async with Relay(milvus_server) as relay:
        address = f"http://127.0.0.1:{relay.port}"
        async with index_at(address, tmp_path, timeout_seconds=1.0) as index:
            await index.features()
            relay.silent = True
            began = time.monotonic()
            calls = [index.search(STORE, [1.0, 0, 0, 0], 5) for _ in range(40)]
            errors = await asyncio.gather(*calls, return_exceptions=True)
            assert time.monotonic() - began < 4
            assert {type(error) for error in errors} == {UpstreamTimeout}


async def test_closing_ends_what_hangs(milvus_server, tmp_path):
    """Calls on their way, and those that still wait for a thread, fail at once."""
    async with Relay(milvus_server) as relay:
        async with index_at(f"http://127.0.0.1:{relay.port}", tmp_path) as index:
            await index.features()
            relay.silent = True
            calls = [index.search(STORE, [1.0, 0, 0, 0], 5) for _ in range(40)]
            pending = asyncio.gather(*calls, return_exceptions=True)
            await asyncio.sleep(0.3)
            began = time.monotonic()
        errors = await pending
        assert time.monotonic() - began < 3
        assert {type(error) for error in errors} == {UpstreamUnavailable}


async def test_a_private_authority_and_client_certificates(milvus_server, tmp_path, private_ca):
    """Both are honoured; without them the connection is refused."""
    ca_file = tmp_path / "ca.pem"
    private_ca.cert_pem.write_to_path(ca_file)
    own = private_ca.issue_cert("gateway")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    own.private_key_pem.write_to_path(key)
    own.cert_chain_pems[0].write_to_path(cert)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(ca_file))
    private_ca.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    context.set_alpn_protocols(["h2"])
    with_ca = {"ca_file": str(ca_file)}
    with_cert = {**with_ca, "client_cert": str(cert), "client_key": str(key)}
    async with Relay(milvus_server, context) as relay:
        address = f"https://127.0.0.1:{relay.port}"
        for required, settings, works in (
            (ssl.CERT_NONE, with_ca, True),
            (ssl.CERT_NONE, {}, False),
            (ssl.CERT_REQUIRED, with_cert, True),
            (ssl.CERT_REQUIRED, with_ca, False),
        ):
            context.verify_mode = required
            async with index_at(address, tmp_path, timeout_seconds=5, **settings) as index:
                if works:
                    assert (await index.features()).engine.startswith("Milvus 2.")
                else:
                    with pytest.raises(UpstreamError):
                        await index.features()


async def test_a_missing_database_is_named(milvus_server, tmp_path):
    """It is not made by the way: whoever runs the server decides on that."""
    async with index_at(milvus_server, tmp_path, database="nowhere") as index:
        with pytest.raises(UpstreamError, match=r"nowhere.*vectors\.database") as raised:
            await index.create(STORE)
        assert "sEcReT" not in raised.value.message


async def test_a_released_collection_is_loaded_again(milvus_server, tmp_path):
    """As after a restart of the server, or when somebody tidied up its memory."""
    async with index_at(milvus_server, tmp_path) as index:
        await index.create(STORE)
        await index.upsert(STORE, [CHUNK])
        await index.settle(STORE)
        client = MilvusClient(milvus_server, dedicated=True)
        (name,) = [name for name in client.list_collections() if name.endswith(STORE.store_id)]
        client.release_collection(name)
        assert [hit.id for hit in await index.search(STORE, [1.0, 0, 0, 0], 5)] == ["a"]
        client.close()
        await index.drop(STORE)
