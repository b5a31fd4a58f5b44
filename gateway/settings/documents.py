"""Documents: conversion, ingestion, search."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from gateway.settings.section import PositiveFloat, PositiveInt, Section


class DocumentSettings(Section, frozen=True):
    """How documents become text.

    ``DocumentSettings(converter="docling-serve", url="http://docling:5001")``
    """

    converter: Literal["docling", "docling-serve"] = "docling"
    models_path: str | None = None
    """For ``docling``: a folder with its models (from ``docling-tools models download``). Without
    one a light layout is used that needs no models."""
    ocr: bool = False
    """Read scanned pages. Needs the extra ``ocr``, or docling-serve with its models."""
    url: str | None = None
    """For ``docling-serve``."""
    api_key: str | None = None
    ca_file: str | None = None
    processes: PositiveInt = 1
    """Converters that run at once, each a process of its own."""
    process_jobs: PositiveInt = 100
    """A converter process is replaced after so many documents."""
    process_memory_bytes: PositiveInt = 4 * 1024**3
    """The most memory that a converter process may use."""


class IngestionSettings(Section, frozen=True):
    """How files get into vector stores.

    ``IngestionSettings(embedded_worker=False)`` leaves the work to ``understudy worker``.
    """

    attach_wait_seconds: Annotated[float, Meta(ge=0)] = 5.0
    """How long attaching a file waits for it to be completed before it says ``in_progress``."""
    embedded_worker: bool = True
    """Whether the server does the work itself."""
    workers: PositiveInt = 2
    """Files in work at once, for each process."""
    lease_seconds: PositiveFloat = 30.0
    """A file whose worker has died is taken up by another one after so long."""
    max_attempts: PositiveInt = 5
    """A file whose worker dies this often, or whose converter, embedding model or index fails so
    often, is failed."""
    timeout_seconds: PositiveFloat = 600.0
    """For the conversion of one file."""
    max_pages: PositiveInt = 2000
    max_file_bytes: PositiveInt = 128 * 1024 * 1024
    """The largest file that is converted; text may be as large as a file may be."""
    max_unzipped_bytes: PositiveInt = 1024 * 1024 * 1024
    """What an office document or another zip may unpack to."""
    max_chunks: PositiveInt = 100_000
    """In one file."""


class SearchSettings(Section, frozen=True):
    """Defaults of searches in vector stores."""

    default_mode: Literal["vector", "keyword", "hybrid"] = "vector"
    rerank_model: str | None = None
    """For ``ranker: neural`` without a ``model``; the only rerank model there is when left out."""
    rewrite_model: str | None = None
    """The chat model for ``rewrite_query``; without one such a search is refused."""
