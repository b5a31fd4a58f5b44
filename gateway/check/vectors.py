"""Where vectors are searched: a store of one chunk is made, searched and dropped."""

from __future__ import annotations

import asyncio
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace

from gateway.check.files import not_there
from gateway.check.finding import Outcome, failed, fine, shown, warned
from gateway.check.mending import mend_of
from gateway.check.probe import CLOSE_SECONDS, Probe, closed_after
from gateway.check.systems import Systems
from gateway.errors import GatewayError
from gateway.ports import IndexedChunk, IndexFeatures, StoreIndex, VectorIndex
from gateway.settings import VectorSettings

__all__ = ["probes"]

_PROJECT = "understudy-check"
_DIMENSION = 4
_WORD = "understudy"
_NEWER = "Use Milvus 2.5 or newer, or search.default_mode: vector."
_PATIENCE = 3.0
"""A new collection takes a server some seconds, as starting Lite does."""


def probes(systems: Systems) -> list[Probe]:
    settings = systems.settings.vectors
    if settings.uri is not None and "://" in settings.uri:
        return [
            Probe(
                system="vectors",
                address=shown(settings.uri),
                look=lambda: _look(systems, settings),
                patience=_PATIENCE,
            )
        ]
    folder = Path(settings.uri or systems.data_dir / "milvus-lite").absolute()
    return [
        Probe(
            system="vectors",
            address=str(folder),
            look=lambda: _look_at_lite(systems, folder),
            patience=_PATIENCE,
        )
    ]


async def _look_at_lite(systems: Systems, folder: Path) -> list[Outcome]:
    settings = systems.settings.vectors
    missing = await not_there(folder, "vectors.uri")
    if missing is None and await asyncio.to_thread(systems.index_is_taken, folder):
        return [
            failed(
                "another process, which is no gateway, has this Milvus Lite open",
                "End it (a notebook, maybe), or name another folder in vectors.uri.",
            )
        ]
    if missing is None:
        return await _look(systems, settings)
    if missing.state == "failed":
        return [missing]
    # Its folder comes with the first start; what is installed can be tried anywhere.
    with tempfile.TemporaryDirectory(prefix="understudy-check-") as elsewhere:
        found = await _look(systems, replace(settings, uri=elsewhere))
    return [
        replace(one, found=f"{one.found}; made at the first start") if one.state == "ok" else one
        for one in found
    ]


async def _look(systems: Systems, settings: VectorSettings) -> list[Outcome]:
    """A collection of the store's own whatever the layout, so that all of it goes again."""
    try:
        return await _try(systems, replace(settings, layout="per_store"))
    except GatewayError as error:
        return [failed(error.message, _mend(error))]


async def _try(systems: Systems, settings: VectorSettings) -> list[Outcome]:
    async with closed_after(systems.index(settings)) as index:
        features = await index.features()
        wanted = systems.settings.search.default_mode
        store = StoreIndex(
            project=_PROJECT,
            store_id=f"vs_check_{uuid.uuid4().hex[:12]}",
            dimension=_DIMENSION,
            keyword=features.keyword,
        )
        made = await _use(index, store)
        outcomes = [made or fine(f"{features.engine}: written, searched and dropped")]
        if not features.keyword:
            outcomes.append(_without_words(features, wanted))
        return outcomes


async def _use(index: VectorIndex, store: StoreIndex) -> Outcome | None:
    """What went wrong with making, filling and searching a store; it is gone afterwards."""
    vector = [1.0, *[0.0] * (_DIMENSION - 1)]
    try:
        await index.create(store)
        chunk = IndexedChunk(id="check", attachment_id="check", text=_WORD, vector=vector)
        await index.upsert(store, [chunk])
        await index.settle(store)
        hits = await index.search(store, vector, 1)
        words = await index.search_text(store, _WORD, 1) if store.keyword else hits
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await index.drop(store)
    if not hits:
        return failed("what was written isn't found", "Look into Milvus's log.")
    if not words:
        return failed("full-text search doesn't find what was written", "Look into Milvus's log.")
    return None


def _without_words(features: IndexFeatures, wanted: str) -> Outcome:
    said = f"{features.engine} has no full-text search (BM25)"
    if wanted == "vector":
        return warned(f"{said}: keyword and hybrid searches are refused", _NEWER)
    return failed(f"{said}, and search.default_mode is {wanted}", _NEWER)


def _mend(error: GatewayError) -> str:
    if "credentials" in error.message:
        return "Correct vectors.token: user:password or an API key."
    if "no database" in error.message:
        return "Create the database, or correct vectors.database."
    if error.code == "upstream_unreachable":
        return (
            "Compare vectors.uri with where Milvus listens (19530), its scheme with whether it "
            "speaks TLS, and vectors.ca_file with who signed its certificate."
        )
    return mend_of(error)
