"""The store of files: a small object and one in parts are written, read and removed."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from gateway.check.files import not_there
from gateway.check.finding import Outcome, failed, fine, warned
from gateway.check.mending import mend_of
from gateway.check.probe import CLOSE_SECONDS, Probe, closed_after
from gateway.check.systems import Systems
from gateway.errors import GatewayError
from gateway.ports import ObjectMissing, ObjectStore
from gateway.settings import ObjectSettings

__all__ = ["probes"]

PREFIX = "understudy-check/"
_SMALL = b"understudy check"
_IN_PARTS = 5 * 1024 * 1024 + 1
"""One byte more than S3's least part, so that two parts are sent."""
_NEVER_SECONDS = 100 * 365 * 24 * 3600.0
_MEND = {
    "AccessDenied": "Let the access key's policy allow {right} on the bucket.",
    "InvalidAccessKeyId": "Correct objects.access_key.",
    "SignatureDoesNotMatch": "Correct objects.secret_key.",
}


def probes(systems: Systems) -> list[Probe]:
    settings = systems.settings.objects
    if settings.kind == "disk":
        folder = Path(settings.path or systems.data_dir / "objects").absolute()

        async def look_at_folder() -> list[Outcome]:
            missing = await not_there(folder, "objects.path")
            return [missing] if missing else await _look(systems)

        return [Probe(system="objects", address=str(folder), look=look_at_folder)]
    scheme = "https" if settings.secure else "http"
    address = f"{scheme}://{settings.endpoint}/{settings.bucket}"
    return [Probe(system="objects", address=address, look=lambda: _look(systems), patience=2.0)]


async def _look(systems: Systems) -> list[Outcome]:
    """Put, read, list and delete, and the same in parts; each needs a right of its own."""
    async with closed_after(systems.objects()) as store:
        return await _use(systems, store)


async def _use(systems: Systems, store: ObjectStore) -> list[Outcome]:
    keys = [f"{PREFIX}{uuid.uuid4().hex}/{name}" for name in ("small", "parts")]
    written: list[str] = []
    try:
        for key, data in zip(keys, (_SMALL, bytes(_IN_PARTS)), strict=True):
            written.append(key)
            right = "s3:PutObject" if data is _SMALL else "s3:PutObject in parts"
            if why := await _step(systems, right, lambda k=key, d=data: store.put(k, _blocks(d))):  # type: ignore[misc]
                return [why]
        if why := await _step(systems, "s3:GetObject", lambda: _read_back(store, keys[0])):
            return [why]
        if why := await _step(systems, "s3:ListBucket", lambda: _found(store, keys[0])):
            return [why]
        if why := await _step(systems, "s3:DeleteObject", lambda: store.delete(keys)):
            return [why]
        written.clear()
        outcomes = [fine("written, read, listed and deleted, in parts too")]
        # Asks for unfinished uploads without finding any that is old enough.
        why = await _step(
            systems,
            "s3:ListBucketMultipartUploads and s3:AbortMultipartUpload",
            lambda: store.sweep(_NEVER_SECONDS),
        )
        if why is not None:
            outcomes.append(
                warned(f"what dead uploads left can't be swept: {why.found}", why.mend or "")
            )
        return outcomes
    finally:
        if written:
            await _clean_up(store, written)


async def _clean_up(store: ObjectStore, keys: list[str]) -> None:
    """What was said before it counts; a store that fails here has failed already."""
    with suppress(GatewayError, TimeoutError):
        async with asyncio.timeout(CLOSE_SECONDS):
            await store.delete(keys)


async def _step(
    systems: Systems, right: str, step: Callable[[], Awaitable[object]]
) -> Outcome | None:
    """What went wrong with one call, which needs this right."""
    settings = systems.settings.objects
    try:
        await step()
    except ObjectMissing:
        return failed(
            "an object that was just written isn't found",
            "Use one endpoint that reads what it has written: is it a cache or a replica?",
        )
    except GatewayError as error:
        code = str(getattr(error.__cause__, "code", None) or "")
        if code == "NoSuchBucket":
            return _no_bucket(settings)
        mend = _MEND[code].format(right=right) if code in _MEND else mend_of(error)
        return failed(
            f"{error.message} ({right})" if code == "AccessDenied" else error.message, mend
        )
    return None


def _no_bucket(settings: ObjectSettings) -> Outcome:
    return warned(
        f"the bucket '{settings.bucket}' does not exist",
        "Make it, or let the access key's policy allow s3:CreateBucket: then the server makes it "
        "at its first start.",
    )


async def _blocks(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _read_back(store: ObjectStore, key: str) -> None:
    found = b"".join([block async for block in store.read(key)])
    if found != _SMALL:
        raise ObjectMissing(key)


async def _found(store: ObjectStore, key: str) -> None:
    keys = {one.key async for one in store.list(key.rpartition("/")[0] + "/")}
    if key not in keys:
        raise ObjectMissing(key)
