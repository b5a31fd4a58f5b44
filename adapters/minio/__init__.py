"""MinIO, and other servers that speak S3."""

from adapters.minio.store import MinioObjectStore

__all__ = ["MinioObjectStore"]
