"""The ``BackendSource`` port over KServe's InferenceServices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import httpx
from msgspec import Struct

from adapters.kubernetes.cluster import SERVICE_ACCOUNT, Cluster, namespace
from adapters.kubernetes.inference_service import PATH, Served, served_by
from adapters.kubernetes.watch import ListFailed, ResourceWatch
from gateway.settings import KServeSettings, ModelSettings, SettingsError

__all__ = ["KServe", "NamespaceState"]

FIRST_LISTS_SECONDS = 2.0
"""How long what is known of some namespaces waits for the others at the start."""


class NamespaceState(Struct, frozen=True, kw_only=True):
    """What one look at a namespace came to. ``status`` is the API server's, where it refused."""

    namespace: str
    services: int = 0
    served: Sequence[Served] = ()
    problem: str | None = None
    status: int | None = None


class KServe:
    """Those that are ready, as models.

    Several InferenceServices with one ``PREFIX/model`` are backends of that model, by their weights
    and priorities. A namespace that can't be listed keeps what it had. Raises ``SettingsError``
    where the API server or the namespace isn't known.
    """

    name = "kserve"

    def __init__(self, settings: KServeSettings, *, folder: Path = SERVICE_ACCOUNT) -> None:
        self._settings = settings
        self._folder = folder
        self._cluster = _cluster(settings, folder)
        self._namespaces = _namespaces(settings, folder)
        self._served: dict[str, list[Served]] = {}
        """By namespace. Kept between watches, so that one that begins anew loses nothing."""

    async def watch(self) -> AsyncIterator[Sequence[ModelSettings]]:
        async with self._cluster.client() as client:
            watches = {one: self._watch_of(client, one) for one in self._namespaces}
            changed = asyncio.Event()
            tasks = [
                asyncio.create_task(self._follow(name, watch, changed), name=f"kserve {name}")
                for name, watch in watches.items()
            ]
            said: Sequence[ModelSettings] | None = None
            try:
                with suppress(TimeoutError):  # one that can't be listed keeps nobody waiting
                    async with asyncio.timeout(FIRST_LISTS_SECONDS):
                        while not all(one.listed for one in watches.values()):
                            await self._until(changed, tasks)
                if any(one.listed for one in watches.values()):
                    changed.set()
                while True:
                    await self._until(changed, tasks)
                    models = self.models()
                    if models != said:
                        said = models
                        yield models
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def look(self) -> list[NamespaceState]:
        """What is there now, asked once: for ``understudy check``."""
        async with self._cluster.client() as client:
            return await asyncio.gather(*(self._look(client, one) for one in self._namespaces))

    def models(self) -> list[ModelSettings]:
        """Of what is known now, in the order of their names."""
        by_model: dict[str, list[Served]] = {}
        for served in self._served.values():
            for one in served:
                by_model.setdefault(one.model, []).append(one)
        return [_model(name, by_model[name]) for name in sorted(by_model)]

    async def _until(self, changed: asyncio.Event, tasks: list[asyncio.Task[None]]) -> None:
        """A change; a task that fails fails this."""
        waiting = asyncio.create_task(changed.wait())
        try:
            done, _ = await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        for task in done - {waiting}:
            await task
        changed.clear()

    async def _follow(self, name: str, watch: ResourceWatch, changed: asyncio.Event) -> None:
        async for _ in watch.changes():
            self._served[name] = self._served_by(watch)
            changed.set()

    async def _look(self, client: httpx.AsyncClient, name: str) -> NamespaceState:
        watch = self._watch_of(client, name)
        try:
            await watch.list()
        except ListFailed as error:
            return NamespaceState(namespace=name, problem=str(error), status=error.status)
        return NamespaceState(
            namespace=name, services=len(watch.known), served=self._served_by(watch)
        )

    def _served_by(self, watch: ResourceWatch) -> list[Served]:
        found = (
            served_by(one, self._settings, folder=self._folder) for one in watch.known.values()
        )
        return [one for one in found if one is not None]

    def _watch_of(self, client: httpx.AsyncClient, name: str) -> ResourceWatch:
        return ResourceWatch(
            client,
            PATH.format(namespace=name),
            label_selector=self._settings.label_selector,
            resync_seconds=self._settings.resync_seconds,
        )


def _cluster(settings: KServeSettings, folder: Path) -> Cluster:
    try:
        return Cluster.found(
            url=settings.api_server,
            token_file=settings.token_file,
            ca_file=settings.ca_file,
            folder=folder,
        )
    except SettingsError as error:
        raise SettingsError(f"kserve.api_server: {error}") from None


def _namespaces(settings: KServeSettings, folder: Path) -> list[str]:
    own = namespace(folder)
    found = list(dict.fromkeys(settings.namespaces)) or ([own] if own else [])
    if not found:
        raise SettingsError("kserve.namespaces: needed where the gateway runs in no pod")
    return found


def _model(name: str, served: Sequence[Served]) -> ModelSettings:
    ordered = sorted(served, key=lambda one: (one.backend.priority, one.service))
    aliases = dict.fromkeys(alias for one in ordered for alias in one.aliases if alias != name)
    kinds: Mapping[str, None] = dict.fromkeys(one.kind for one in ordered if one.kind)
    return ModelSettings(
        id=name,
        backends=[one.backend for one in ordered],
        aliases=list(aliases),
        kind=next(iter(kinds), None),  # type: ignore[arg-type]
    )
