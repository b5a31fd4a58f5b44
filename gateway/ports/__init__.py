"""What the application needs from the world outside: one Protocol per port.

An adapter fulfils a port and is known by ``app.py`` alone; ``tests/contract`` holds one suite for
each port, which runs on every adapter.
"""

from gateway.ports.document_converter import (
    Chunk,
    ChunkSizes,
    ConversionFailed,
    DocumentConverter,
    FailureCode,
)
from gateway.ports.job_queue import Handler, Job, JobQueue, TryAgain
from gateway.ports.model_server import (
    Answer,
    Headers,
    ModelServer,
    Quiet,
    ServedModel,
    ServerKind,
)
from gateway.ports.object_store import ObjectMissing, ObjectStore, StoredObject
from gateway.ports.vector_index import Hit, IndexedChunk, IndexFeatures, StoreIndex, VectorIndex

__all__ = [
    "Answer",
    "Chunk",
    "ChunkSizes",
    "ConversionFailed",
    "DocumentConverter",
    "FailureCode",
    "Handler",
    "Headers",
    "Hit",
    "IndexFeatures",
    "IndexedChunk",
    "Job",
    "JobQueue",
    "ModelServer",
    "ObjectMissing",
    "ObjectStore",
    "Quiet",
    "ServedModel",
    "ServerKind",
    "StoreIndex",
    "StoredObject",
    "TryAgain",
    "VectorIndex",
]
