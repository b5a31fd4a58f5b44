"""Whole folders into a vector store, over the HTTP API, again and again without doing more than is
needed: each file in the store has the attributes ``path`` and ``sha256``, by which the next run
knows it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import IO, Any, Literal, Protocol

from msgspec import Struct

from gateway.ingestion.folder import LocalFile
from gateway.ingestion.remote_store import Refused, RemoteFile, RemoteStore, StoreFailed

__all__ = ["Action", "FolderUpload", "Outcome", "Watcher"]

Action = Literal["add", "replace", "retry", "chunk", "describe", "wait", "skip"]

_LONGEST_ATTRIBUTE = 512


class Outcome(Struct, frozen=True, kw_only=True):
    """What became of a file; ``error`` says why it is not in the store."""

    file: LocalFile
    action: Action
    error: str | None = None


class Watcher(Protocol):
    """Is told how it goes."""

    def read(self, size: int) -> None:
        """So many bytes of a file were sent; negative where they have to be sent again."""

    def done(self, outcome: Outcome) -> None:
        """A file is finished, one way or the other."""


class _Plan(Struct, frozen=True, kw_only=True):
    action: Action
    attributes: dict[str, Any]
    old: list[RemoteFile]
    """What the store has under this path."""


class FolderUpload:
    """Uploads and attaches, ``workers`` files at once."""

    def __init__(
        self,
        store: RemoteStore,
        watcher: Watcher,
        *,
        attributes: Mapping[str, str | float | bool],
        chunking: Mapping[str, Any] | None,
        workers: int,
    ) -> None:
        self._store = store
        self._watcher = watcher
        self._attributes = attributes
        self._chunking = chunking
        self._workers = workers
        self._known: dict[str, list[RemoteFile]] = {}

    async def look(self) -> None:
        """Find out what is in the store."""
        self._known.clear()
        async for one in self._store.files():
            path = one.attributes.get("path")
            if isinstance(path, str):
                self._known.setdefault(path, []).append(one)

    async def plan(self, file: LocalFile) -> Action:
        """What would be done."""
        return (await self._plan(file)).action

    async def run(self, files: Sequence[LocalFile]) -> list[Outcome]:
        """All of them, in any order. Raises nothing for a single file."""
        waiting = iter(files)
        outcomes: list[Outcome] = []

        async def work() -> None:
            for file in waiting:  # shared: each takes the next one
                outcome = await self._bring(file)
                outcomes.append(outcome)
                self._watcher.done(outcome)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._workers, len(files))):
                group.create_task(work())
        return outcomes

    async def _bring(self, file: LocalFile) -> Outcome:
        action: Action = "add"
        try:
            plan = await self._plan(file)
            action = plan.action
            return Outcome(file=file, action=action, error=await self._do(file, plan))
        except StoreFailed as error:
            return Outcome(file=file, action=action, error=str(error))
        except OSError as error:
            return Outcome(file=file, action=action, error=f"Can't be read: {error.strerror}")

    async def _plan(self, file: LocalFile) -> _Plan:
        if len(file.name) > _LONGEST_ATTRIBUTE:
            raise Refused(f"Its path is longer than {_LONGEST_ATTRIBUTE} characters.")
        digest = await asyncio.to_thread(file.sha256)
        attributes = {**self._attributes, "path": file.name, "sha256": digest}
        old = self._known.get(file.name, [])
        action: Action = "replace" if old else "add"
        same = [one for one in old if one.attributes.get("sha256") == digest]
        if same:
            last = same[-1]
            if last.status == "in_progress":
                action = "wait"
            elif last.status != "completed":
                action = "retry"
            elif self._chunking is not None and last.chunking != self._chunking:
                action = "chunk"
            else:
                action = "skip" if last.attributes == attributes else "describe"
            old = [*(one for one in old if one is not last), last]
        return _Plan(action=action, attributes=attributes, old=old)

    async def _do(self, file: LocalFile, plan: _Plan) -> str | None:
        """Returns why it failed."""
        match plan.action:
            case "skip":
                done = plan.old[-1]
            case "describe":
                done = plan.old[-1]
                await self._store.set_attributes(done.file_id, plan.attributes)
            case "wait":
                done = await self._store.wait(plan.old[-1].file_id)
            case "chunk":  # the gateway does it anew for another size
                done = await self._store.attach(
                    plan.old[-1].file_id, plan.attributes, self._chunking
                )
            case "retry":
                done = plan.old[-1]
                await self._store.detach(done.file_id)
                done = await self._store.attach(done.file_id, plan.attributes, self._chunking)
            case _:
                file_id = await self._upload(file)
                done = await self._store.attach(file_id, plan.attributes, self._chunking)
        if done.status != "completed":
            return done.error or f"It is {done.status}."
        # The old one goes only now, so that there is always one to be found.
        for one in plan.old:
            if one.file_id != done.file_id:
                await self._store.detach(one.file_id)
        return None

    async def _upload(self, file: LocalFile) -> str:
        sent = 0

        def watched(source: IO[bytes]) -> IO[bytes]:
            nonlocal sent
            self._watcher.read(-sent)  # an attempt before this one was in vain
            sent = 0

            class Watched:
                name = file.path.name

                def read(self, size: int = -1) -> bytes:
                    nonlocal sent
                    block = source.read(size)
                    sent += len(block)
                    watcher.read(len(block))
                    return block

                def __getattr__(self, name: str) -> Any:
                    return getattr(source, name)

                def __iter__(self) -> Any:
                    return iter(source)

            return Watched()  # type: ignore[return-value]  # as much of a file as httpx reads

        watcher = self._watcher
        return await self._store.upload(file.path, file.path.name, watched)
