"""What the application may rely on of any `Bucket`, run on a real S3 server."""

from __future__ import annotations

import io
from pathlib import Path
from uuid import uuid4

import pytest
from minio import Minio

from adapters.minio.bucket import S3Bucket
from gateway.ports import Bucket, BucketFailed, BucketObjectChanged
from tests.real.s3.server import S3Server
from tests.support.gateway import free_port

pytestmark = pytest.mark.anyio


class Documents:
    """A bucket, and a way to put something into it."""

    def __init__(self, server: S3Server) -> None:
        self.server = server
        self.name = f"bucket-{uuid4().hex[:8]}"
        self.client = Minio(
            server.endpoint,
            access_key=server.access_key,
            secret_key=server.secret_key,
            secure=False,
        )
        self.client.make_bucket(self.name)

    def put(self, key: str, content: bytes) -> None:
        self.client.put_object(self.name, key, io.BytesIO(content), len(content))

    def opened(self, **other: str) -> Bucket:
        given = {
            "access_key": self.server.access_key,
            "secret_key": self.server.secret_key,
            **other,
        }
        endpoint = given.pop("endpoint", f"http://{self.server.endpoint}")
        return S3Bucket(endpoint, given.pop("bucket", self.name), **given)


@pytest.fixture
def documents(s3: S3Server) -> Documents:
    return Documents(s3)


async def listed(bucket: Bucket, prefix: str = "") -> dict[str, int]:
    return {one.key: one.size async for one in bucket.list(prefix)}


async def test_all_documents_below_a_prefix_are_listed(documents: Documents):
    """With their sizes; folders and empty objects are none."""
    for key, content in {"a/1.txt": b"one", "a/b/2.txt": b"four", "a/0.txt": b""}.items():
        documents.put(key, content)
    documents.put("c.txt", b"c")
    bucket = documents.opened()
    assert await listed(bucket) == {"a/1.txt": 3, "a/b/2.txt": 4, "c.txt": 1}
    assert await listed(bucket, "a/") == {"a/1.txt": 3, "a/b/2.txt": 4}
    assert await listed(bucket, "nothing/") == {}
    await bucket.aclose()


async def test_a_document_is_downloaded_as_it_was_listed(documents: Documents, tmp_path: Path):
    """One that is another by now, or gone, is refused."""
    documents.put("Grüße & more?.txt", b"one")
    bucket = documents.opened()
    [found] = [one async for one in bucket.list("")]
    to = tmp_path / "content"
    await bucket.download(found, to)
    assert to.read_bytes() == b"one"
    documents.put("Grüße & more?.txt", b"two!")
    with pytest.raises(BucketObjectChanged):
        await bucket.download(found, to)
    documents.client.remove_object(documents.name, found.key)
    with pytest.raises(BucketObjectChanged):
        await bucket.download(found, to)
    await bucket.aclose()


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"bucket": "no-such-bucket"}, "there is no such bucket"),
        ({"secret_key": "wrong-wrong-wrong"}, "the secret key is wrong"),
        ({"access_key": "nobody"}, "there is no such access key"),
        ({"endpoint": f"http://127.0.0.1:{free_port()}"}, "can't be read"),
    ],
)
async def test_what_is_wrong_is_said(documents: Documents, other: dict[str, str], said: str):
    """In words for people, without a secret."""
    bucket = documents.opened(**other)
    with pytest.raises(BucketFailed, match=said) as failed:
        await listed(bucket)
    assert documents.server.secret_key not in str(failed.value)
    await bucket.aclose()


@pytest.mark.parametrize("endpoint", ["", "minio:9000", "ftp://minio"])
def test_an_endpoint_is_a_url(documents: Documents, endpoint: str):
    """Anything else is refused before it is used."""
    with pytest.raises(BucketFailed, match="expected http://host:port"):
        documents.opened(endpoint=endpoint)
