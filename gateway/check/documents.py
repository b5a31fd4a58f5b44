"""The converter of documents: a small page is converted by it."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from gateway.check.finding import Outcome, failed, fine, shown, warned
from gateway.check.probe import Probe, closed_after
from gateway.check.systems import Systems
from gateway.ports import ChunkSizes, ConversionFailed

__all__ = ["probes"]

_PAGE = b"<!doctype html><html><body><h1>Check</h1><p>A page to convert.</p></body></html>"
_PATIENCE = 4.0
"""A converter's process loads docling before its first document."""


def probes(systems: Systems) -> list[Probe]:
    settings = systems.settings.documents
    address = shown(settings.url) if settings.url else "on this machine"
    return [
        Probe(
            system=settings.converter,
            address=address if settings.converter == "docling-serve" else "on this machine",
            look=lambda: _look(systems),
            patience=_PATIENCE,
        )
    ]


async def _look(systems: Systems) -> Outcome:
    settings = systems.settings.documents
    models = Path(settings.models_path) if settings.models_path is not None else None
    if models is not None and not await asyncio.to_thread(models.is_dir):
        return failed(
            "documents.models_path is no folder",
            "Fill one with `docling-tools models download`, or leave the setting out.",
        )
    folder = await asyncio.to_thread(tempfile.TemporaryDirectory, prefix="understudy-check-")
    try:
        source, into = Path(folder.name) / "check.html", Path(folder.name) / "check.json"
        await asyncio.to_thread(source.write_bytes, _PAGE)
        async with closed_after(systems.converter()) as converter:
            await converter.convert(source, "check.html", into)
            chunks = await converter.chunk(into, ChunkSizes())
    except ConversionFailed as error:
        return _why(error, serve=settings.converter == "docling-serve")
    finally:
        await asyncio.to_thread(folder.cleanup)
    if not chunks:
        return failed("a page with text became none", "Look into the converter's log.")
    return fine("a page was converted and cut into chunks")


def _why(error: ConversionFailed, *, serve: bool) -> Outcome:
    if "understudy-gateway[docling]" in error.message:
        return warned(
            "docling is not installed: only text files can be read",
            "pip install 'understudy-gateway[docling]', or use docling-serve.",
        )
    if not serve:
        return failed(error.message, "Install understudy-gateway[docling] anew.")
    if "key" in error.message:
        return failed(error.message, "Correct documents.api_key.")
    return failed(
        error.message,
        "Compare documents.url with where docling-serve listens (5001), and documents.ca_file with "
        "who signed its certificate.",
    )
