"""Which servers there are can change while the gateway runs: by the configuration, and by what
another source says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from gateway.ports import ServedModel
from gateway.routing.catalog import Catalog
from gateway.routing.discovery import Discovery
from gateway.settings import BackendSettings, ModelSettings, Settings, SettingsError
from tests.support.inprocess import until

pytestmark = pytest.mark.anyio


class Server:
    """A server that runs one model of its host's name."""

    provider = "vllm"
    port = 80

    def __init__(self, backend: BackendSettings) -> None:
        if "broken" in backend.url:
            raise SettingsError(f"{backend.url}: the TLS files can't be used")
        self.name = backend.url
        self.host = backend.url.removeprefix("http://")
        self.busy_connections = 0
        self.closed = False

    async def list_models(self) -> list[ServedModel]:
        return [ServedModel(name=self.host)]

    async def find_kind(self) -> str:
        return "chat"

    async def queue_length(self) -> None:
        return None

    async def aclose(self) -> None:
        self.closed = True


class Source:
    """Gives what is put into its queue; an exception is raised."""

    name = "cluster"

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Sequence[ModelSettings] | Exception] = asyncio.Queue()

    async def watch(self) -> AsyncIterator[Sequence[ModelSettings]]:
        while True:
            item = await self.queue.get()
            if isinstance(item, Exception):
                raise item
            yield item


class Place:
    def __init__(self, *, sources: Sequence[Source] = (), **settings) -> None:
        self.made: list[Server] = []
        self.catalog = Catalog()
        self.discovery = Discovery(
            Settings(**settings),
            self.catalog,
            self._make,
            sources=sources,  # type: ignore[arg-type]
        )

    def _make(self, backend: BackendSettings) -> Server:
        server = Server(backend)
        self.made.append(server)
        return server

    def hosts(self, model: str) -> list[str]:
        return [backend.server.host for backend in self.catalog.get(model).backends]

    def names(self) -> list[str]:
        return sorted(model.id for model in self.catalog.models())

    @asynccontextmanager
    async def running(self):
        async with self.discovery.running():
            yield self


def model(name: str, *hosts: str) -> ModelSettings:
    return ModelSettings(id=name, backends=[BackendSettings(url=f"http://{one}") for one in hosts])


async def test_a_new_server_is_asked_at_once():
    """Configured while the gateway runs, its models are there without a restart."""
    async with Place(discover=["http://a"]).running() as place:
        assert place.names() == ["a"]
        place.discovery.configure([], ["http://a", "http://b"])
        await until(lambda: place.names() == ["a", "b"], "b's model")


async def test_a_server_that_stays_is_the_same_one():
    """Its connections and what is known of it outlive the change."""
    async with Place(models=[model("m", "a", "b")]).running() as place:
        before = {state.server.host: state.server for state in place.discovery.servers}
        created = place.catalog.get("m").created
        place.discovery.configure([model("m", "b", "c")], [])
        after = {state.server.host: state.server for state in place.discovery.servers}
        assert place.hosts("m") == ["b", "c"]
        assert after["b"] is before["b"]
        assert place.catalog.get("m").created == created
        assert [state.provider_id for state in place.discovery.servers] == ["vllm-2", "vllm"]


async def test_a_server_that_vanishes_finishes_its_requests():
    """It is closed when it has none left, and not before."""
    async with Place(discover=["http://a", "http://b"]).running() as place:
        a = place.made[0]
        a.busy_connections = 1
        place.discovery.configure([], ["http://b"])
        assert place.names() == ["b"]
        await asyncio.sleep(0.3)
        assert (a.closed, place.discovery.draining) == (False, 1)
        a.busy_connections = 0
        await until(lambda: a.closed, "a closed")
        assert place.discovery.draining == 0


async def test_the_end_closes_what_still_drains():
    """A server that is used no more and still has requests holds nobody up."""
    async with Place(discover=["http://a", "http://b"]).running() as place:
        place.made[0].busy_connections = 1
        place.discovery.configure([], ["http://b"])
    assert all(server.closed for server in place.made)


async def test_a_server_that_can_t_be_made_changes_nothing():
    """The old set stays whole, and the error names the server."""
    async with Place(discover=["http://a"]).running() as place:
        with pytest.raises(SettingsError, match="broken"):
            place.discovery.configure([], ["http://b", "http://broken"])
        assert place.names() == ["a"]
        assert [state.server.host for state in place.discovery.servers] == ["a"]


async def test_a_source_brings_models_and_takes_them_away(monkeypatch):
    """Beside the configured ones, which keep their names."""
    monkeypatch.setattr("gateway.routing.discovery.FIRST_ROUND_SECONDS", 0.1)
    source = Source()
    async with Place(models=[model("m", "a")], sources=[source]).running() as place:
        source.queue.put_nowait([model("m", "x"), model("n", "x", "y"), model("o")])
        await until(lambda: place.names() == ["m", "n"], "the source's model")
        assert place.hosts("m") == ["a"]
        assert place.hosts("n") == ["x", "y"]
        place.discovery.configure([model("m", "b")], [])
        assert place.hosts("n") == ["x", "y"]
        source.queue.put_nowait([])
        await until(lambda: place.names() == ["m"], "the model gone")


async def test_the_first_word_of_a_source_is_waited_for():
    """Requests that come right after the start should find its models."""
    source = Source()
    source.queue.put_nowait([model("m", "a")])
    async with Place(sources=[source]).running() as place:
        assert place.names() == ["m"]
        assert place.catalog.get("m").kind == "chat"


async def test_a_source_that_fails_is_watched_again(monkeypatch):
    """What it said before stays meanwhile; what it says wrong is left out."""
    monkeypatch.setattr("gateway.routing.discovery.SOURCE_RETRY_SECONDS", 0.01)
    monkeypatch.setattr("gateway.routing.discovery.FIRST_ROUND_SECONDS", 0.1)
    source = Source()
    async with Place(sources=[source]).running() as place:
        source.queue.put_nowait([model("m", "a")])
        await until(lambda: place.names() == ["m"], "the source's model")
        source.queue.put_nowait(RuntimeError("lost"))
        source.queue.put_nowait([model("m", "broken")])
        source.queue.put_nowait([model("m", "a"), model("n", "a")])
        await until(lambda: place.names() == ["m", "n"], "the second model")
        assert place.hosts("m") == ["a"]
