"""What the application needs from the world outside: one Protocol per port.

An adapter fulfils a port and is known by ``app.py`` alone; ``tests/contract`` holds one suite for
each port, which runs on every adapter.
"""

from gateway.ports.backend_source import BackendSource
from gateway.ports.content_detector import ContentDetector, Detection
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
from gateway.ports.token_verifier import ReviewedUser, TokenReviewer, TokenVerifier
from gateway.ports.tool_server import (
    ServedTool,
    ToolOutput,
    ToolServer,
    ToolServerAddress,
    ToolServerFailed,
    ToolSession,
)
from gateway.ports.vector_index import Hit, IndexedChunk, IndexFeatures, StoreIndex, VectorIndex
from gateway.ports.web_fetcher import FetchedPage, WebFetcher
from gateway.ports.web_search import WebPage, WebSearch, WebSearchFailed

__all__ = [
    "Answer",
    "BackendSource",
    "Chunk",
    "ChunkSizes",
    "ContentDetector",
    "ConversionFailed",
    "Detection",
    "DocumentConverter",
    "FailureCode",
    "FetchedPage",
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
    "ReviewedUser",
    "ServedModel",
    "ServedTool",
    "ServerKind",
    "StoreIndex",
    "StoredObject",
    "TokenReviewer",
    "TokenVerifier",
    "ToolOutput",
    "ToolServer",
    "ToolServerAddress",
    "ToolServerFailed",
    "ToolSession",
    "TryAgain",
    "VectorIndex",
    "WebFetcher",
    "WebPage",
    "WebSearch",
    "WebSearchFailed",
]
