"""Deleted means gone: vectors, objects and rows of what was deleted, in this order.

A row is the last to go, because it is what the rest is found by. Each handler may run again after
it was cut off anywhere.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable

from gateway.errors import UpstreamError
from gateway.ingestion.tombstones import TombstoneRepository
from gateway.ports import Handler, Job, ObjectStore, TryAgain, VectorIndex

__all__ = ["CleanupService"]

_FIRST_PAUSE_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 300.0
_KEYS_AT_ONCE = 500


class CleanupService:
    """The handlers of the ``delete_…`` jobs. They never give up."""

    def __init__(
        self, repository: TombstoneRepository, objects: ObjectStore, index: VectorIndex
    ) -> None:
        self._repository = repository
        self._objects = objects
        self._index = index

    def handlers(self) -> dict[str, Handler]:
        return {
            "delete_attachment": _patient(self.delete_attachment),
            "delete_store": _patient(self.delete_store),
            "delete_file": _patient(self.delete_file),
            "delete_upload": _patient(self.delete_upload),
        }

    async def delete_attachment(self, project: str, attachment_id: str) -> None:
        index = await self._repository.attachment(project, attachment_id)
        if index is None:
            return
        await self._index.delete(index, attachment_id)
        await self._repository.remove_attachment(project, attachment_id)
        if await self._repository.is_empty_and_expired(project, index.store_id):
            await self._index.drop(index)

    async def delete_store(self, project: str, store_id: str) -> None:
        index = await self._repository.store(project, store_id)
        if index is None:
            return
        await self._index.drop(index)
        await self._repository.remove_store(project, store_id)

    async def delete_file(self, project: str, file_id: str) -> None:
        left = await self._repository.file(project, file_id)
        if left is None:
            return
        for attachment_id, index in left.attachments:
            await self._index.delete(index, attachment_id)
            await self._repository.remove_attachment(project, attachment_id)
        await self._objects.delete(left.keys)
        await self._repository.remove_file(project, file_id)

    async def delete_upload(self, project: str, upload_id: str) -> None:
        """Its parts; the row itself is shown for a while."""
        if not await self._repository.upload_is_over(project, upload_id):
            return
        # By what is there, not by the rows: a part whose request died has no row.
        async for keys in _keys(self._objects, f"{project}/uploads/{upload_id}/"):
            await self._objects.delete(keys)
        await self._repository.remove_parts(project, upload_id)


def _patient(remove: Callable[[str, str], Awaitable[None]]) -> Handler:
    """Runs again, after a pause that grows, for as long as a server can't be reached."""

    @functools.wraps(remove)
    async def handle(job: Job) -> None:
        try:
            await remove(job.payload["project"], job.payload["id"])
        except UpstreamError as error:
            pause = _FIRST_PAUSE_SECONDS * 2 ** min(job.attempt - 1, 10)
            raise TryAgain(min(pause, _LONGEST_PAUSE_SECONDS), error.message) from None

    return handle


async def _keys(objects: ObjectStore, prefix: str) -> AsyncIterator[list[str]]:
    keys = []
    async for one in objects.list(prefix):
        keys.append(one.key)
        if len(keys) == _KEYS_AT_ONCE:
            yield keys
            keys = []
    if keys:
        yield keys
