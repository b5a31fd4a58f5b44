"""Bringing a file into a vector store: the handler of ``ingest_file``."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy.exc import SQLAlchemyError

from gateway.embeddings.embedder import Embedder
from gateway.errors import GatewayError, InvalidRequest, ModelNotFound, UpstreamError, WrongKind
from gateway.identity.principal import Principal
from gateway.ingestion.contextual import ContextStrategy, ContextWriter
from gateway.ingestion.document import DocumentSource
from gateway.ingestion.indexer import Indexed, Indexer
from gateway.ingestion.repository import Claim, IngestionRepository, NotWanted
from gateway.ingestion.workspace import Workspace
from gateway.observability import semconv
from gateway.observability.activity import Activity
from gateway.observability.telemetry import Telemetry
from gateway.ports import (
    Chunk,
    ChunkSizes,
    ConversionFailed,
    DocumentConverter,
    FailureCode,
    Job,
    ObjectStore,
    StoreIndex,
    TryAgain,
    VectorIndex,
)
from gateway.relay.client import ModelClient
from gateway.routing.catalog import Catalog
from gateway.settings import EmbeddingSettings, IngestionSettings

__all__ = ["IngestionService"]

logger = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 600.0
_PAUSE_GROWTH = 4.0
"""With five attempts: after 5, 20, 80 and 320 s, so that seven minutes of outage fail no file."""

_LARGEST_CHUNK = ChunkSizes(max_chunk_size_tokens=4096, chunk_overlap_tokens=0)


class _Reason(Struct, frozen=True):
    """Why an attempt failed; without a ``code`` where another one may do better."""

    message: str
    code: FailureCode | None = None


class IngestionService:
    """Takes a file from ``in_progress`` to ``completed`` or ``failed``.

    An attempt ends in one of five ways: it completes the file; it fails the file; it leaves the
    file to a later attempt, after a pause that grows (``TryAgain``); it finds that the file isn't
    wanted any more and removes what it has written; or it is cut off by a shutdown, which doesn't
    count. Attempts that fail, and those whose process died, count together, and at
    ``ingestion.max_attempts`` the file is failed: so none stays in progress for ever.
    """

    def __init__(
        self,
        repository: IngestionRepository,
        *,
        objects: ObjectStore,
        converter: DocumentConverter,
        index: VectorIndex,
        embedder: Embedder,
        catalog: Catalog,
        client: ModelClient,
        telemetry: Telemetry,
        workspace: Workspace,
        settings: IngestionSettings,
        embedding: EmbeddingSettings,
    ) -> None:
        self._repository = repository
        self._converter = converter
        self._index = index
        self._catalog = catalog
        self._client = client
        self._telemetry = telemetry
        self._metrics = telemetry.metrics
        self._workspace = workspace
        self._settings = settings
        self._documents = DocumentSource(
            repository, objects, converter, transfer_seconds=settings.timeout_seconds
        )
        self._indexer = Indexer(repository, index, embedder, batch_size=embedding.batch_size)

    async def ingest(self, job: Job) -> None:
        """One attempt. Raises ``TryAgain``."""
        project, attachment_id = job.payload["project"], job.payload["id"]
        claim = await self._repository.claim(project, attachment_id)
        if claim is None:
            await self._remove_leftovers(project, attachment_id)
            return
        started = time.monotonic()
        if claim.attempt == 1:
            self._metrics.ingestion_began(max(time.time() - claim.attached_at, 0.0))
        status = "retried"
        self._metrics.active_ingestions.inc()
        try:
            status = await self._attempt(claim)
        finally:
            self._metrics.active_ingestions.dec()
            self._metrics.ingestion_ended(status, time.monotonic() - started)

    async def _attempt(self, claim: Claim) -> str:
        """Returns how it ended. Raises ``TryAgain``."""
        try:
            if claim.tries > self._settings.max_attempts:
                return await self._fail(
                    claim,
                    "server_error",
                    f"Given up after {self._settings.max_attempts} attempts, the last of which the "
                    "worker did not survive. The file may need more memory than there is; try a "
                    "smaller one, or attach it again.",
                )
            return await self._run(claim)
        except NotWanted:
            await self._clean_up_behind(claim)
            return "dropped"
        except asyncio.CancelledError:
            await _in_spite_of_cancellation(self._repository.give_back(claim))
            raise

    async def _run(self, claim: Claim) -> str:
        try:
            with Activity.of_job(
                self._telemetry,
                "ingest",
                caused_by=claim.traceparent,
                principal=Principal(project=claim.project),
                attributes={
                    semconv.VECTOR_STORE_ID: claim.index.store_id,
                    semconv.FILE_ID: claim.file_id,
                    semconv.INGESTION_ATTEMPT: claim.attempt,
                },
            ) as activity:
                indexed = await self._bring_in(activity, claim)
                await self._repository.complete(claim, indexed.bytes)
                activity.attributes[semconv.INGESTION_STATUS] = "completed"
        except NotWanted:
            raise
        except Exception as error:  # noqa: BLE001  (each kind has its answer there)
            reason = _reason(claim, error)
            if reason.code is not None:
                return await self._fail(claim, reason.code, reason.message)
            return await self._try_again(claim, reason.message)
        self._metrics.chunks_indexed(embedded=indexed.embedded, reused=indexed.reused)
        return "completed"

    async def _bring_in(self, activity: Activity, claim: Claim) -> Indexed:
        async with self._workspace.folder() as folder:
            with activity.step("convert"):
                document = await self._documents.fetch(claim, folder)
            with activity.step("chunk") as step:
                sizes, strategy = _chunking(claim)
                chunks = await self._converter.chunk(document, sizes)
                step.attributes[semconv.CHUNK_COUNT] = len(chunks)
                self._check_number(chunks)
                contexts = await self._contexts(document, strategy)
        await self._repository.check(claim)
        return await self._indexer.run(activity, claim, chunks, contexts)

    def _check_number(self, chunks: list[Chunk]) -> None:
        if not chunks:
            raise ConversionFailed(
                "invalid_file",
                "No text was found in the file. If its pages are pictures, it needs OCR.",
            )
        if len(chunks) > self._settings.max_chunks:
            raise ConversionFailed(
                "invalid_file",
                f"The file makes {len(chunks)} chunks; the limit is {self._settings.max_chunks}. "
                "Split it, or use a larger max_chunk_size_tokens.",
            )

    async def _contexts(
        self, document: Path, strategy: ContextStrategy | None
    ) -> ContextWriter | None:
        if strategy is None:
            return None
        whole = await self._converter.chunk(document, _LARGEST_CHUNK)
        return ContextWriter(self._catalog, self._client, strategy, whole)

    # -- how an attempt ends --------------------------------------------------------------------

    async def _fail(self, claim: Claim, code: FailureCode, message: str) -> str:
        await self._repository.fail(claim, code, message)
        logger.warning("%s was not ingested: %s", claim.file_id, message)
        await self._repository.remove_chunks(claim.project, claim.attachment_id)
        await self._remove_vectors(claim.index, claim.attachment_id)
        return "failed"

    async def _try_again(self, claim: Claim, reason: str) -> str:
        """Raises ``TryAgain``, or fails the file when that has been done often enough."""
        await self._repository.check(claim)
        if claim.tries >= self._settings.max_attempts:
            message = f"Given up after {claim.tries} attempts. The last one: {reason}"
            return await self._fail(claim, "server_error", message)
        pause = _FIRST_PAUSE_SECONDS * _PAUSE_GROWTH ** (claim.tries - 1)
        raise TryAgain(min(pause, _LONGEST_PAUSE_SECONDS), reason)

    async def _clean_up_behind(self, claim: Claim) -> None:
        """Remove what was written after the file was removed, unless it is another worker's now."""
        if await self._repository.is_taken_over(claim):
            return
        if not await self._repository.is_store_there(claim):
            await self._remove_store(claim.index)
            return
        await self._repository.remove_chunks(claim.project, claim.attachment_id)
        await self._remove_vectors(claim.index, claim.attachment_id)

    async def _remove_leftovers(self, project: str, attachment_id: str) -> None:
        """Of a file that was cancelled, or failed, while its worker was dead."""
        index = await self._repository.is_abandoned(project, attachment_id)
        if index is not None:
            await self._repository.remove_chunks(project, attachment_id)
            await self._remove_vectors(index, attachment_id)

    async def _remove_vectors(self, index: StoreIndex, attachment_id: str) -> None:
        try:
            await self._index.delete(index, attachment_id)
        except UpstreamError as error:  # nobody sees them, and the reconciler finds them
            logger.info("Vectors of %s are left: %s", attachment_id, error.message)

    async def _remove_store(self, index: StoreIndex) -> None:
        try:
            await self._index.drop(index)
        except UpstreamError as error:
            logger.info("Vectors of %s are left: %s", index.store_id, error.message)


def _reason(claim: Claim, error: Exception) -> _Reason:
    """What an attempt failed of, and whether another one may do better."""
    failure: FailureCode | None = None
    match error:
        case ConversionFailed():
            message, failure = error.message, None if error.transient else error.code
        case ModelNotFound():
            # It may come back: the models of a server that restarts are not known for a while.
            message = f"The embedding model '{claim.embedding_model}' is not there."
        case WrongKind():
            message, failure = error.message, "server_error"
        case InvalidRequest():
            failure = "server_error"
            message = (
                f"The file was refused: {error.message} If a chunk is longer than the model "
                "takes, attach the file again with a smaller max_chunk_size_tokens."
            )
        case GatewayError():
            message = error.message
        case TimeoutError():
            message = "The object store took too long."
        case _:
            logger.error("Ingesting %s failed", claim.attachment_id, exc_info=error)
            message = f"An internal error ({type(error).__name__}); the gateway's log has more."
    return _Reason(message, failure)


async def _in_spite_of_cancellation(last_word: Coroutine[Any, Any, None]) -> None:
    """Finish this, a matter of milliseconds, though the task is being cancelled."""
    try:
        async with asyncio.timeout(2):
            await asyncio.shield(asyncio.create_task(last_word))
    except (GatewayError, SQLAlchemyError, TimeoutError):
        logger.warning("An attempt could not be given back; it counts")


def _chunking(claim: Claim) -> tuple[ChunkSizes, ContextStrategy | None]:
    """How this file is cut, and whether a model writes contexts."""
    kind = claim.chunking.get("type", "static")
    given = claim.chunking.get(kind) or {}
    if kind != "contextual":
        return msgspec.convert(given, ChunkSizes), None
    strategy = msgspec.convert(
        {name: value for name, value in given.items() if value is not None}, ContextStrategy
    )
    sizes = ChunkSizes(
        max_chunk_size_tokens=strategy.max_chunk_size_tokens,
        chunk_overlap_tokens=strategy.chunk_overlap_tokens,
    )
    return sizes, strategy
