"""The steps of the ingestion pipeline, one by one, against a gateway; a bucket is a dictionary."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from gateway.ingestion.bulk_plan import BulkPlanner, Sizes
from gateway.ingestion.bulk_records import Failure, Outcome, Plan, read_plan, write_plan
from gateway.ingestion.bulk_report import failed_documents, report
from gateway.ingestion.bulk_steps import convert_documents, embed_documents, insert_documents
from gateway.ingestion.remote_store import Away, Refused, RemoteStore
from gateway.ports import BucketObject, BucketObjectChanged, Chunk, ConversionFailed
from tests.support.inprocess import InProcessGateway
from tests.support.upstream import FakeVllm, faults

pytestmark = pytest.mark.anyio


class MemoryBucket:
    def __init__(self, **documents: str) -> None:
        self.documents = {f"{name}.txt": text for name, text in documents.items()}

    async def list(self, prefix: str) -> AsyncIterator[BucketObject]:
        for key in sorted(self.documents):
            if key.startswith(prefix):
                yield self._object(key)

    async def download(self, wanted: BucketObject, to: Path) -> None:
        if wanted.key not in self.documents or self._object(wanted.key) != wanted:
            raise BucketObjectChanged(f"{wanted.key} has changed since it was listed.")
        _write(to, self.documents[wanted.key])

    async def aclose(self) -> None:
        pass

    def _object(self, key: str) -> BucketObject:
        text = self.documents[key].encode()
        return BucketObject(key=key, etag=hashlib.sha256(text).hexdigest()[:8], size=len(text))


class Lines:
    """A converter whose chunks are lines. A document that says so can't be converted."""

    def __init__(self) -> None:
        self.deaths = 0
        """How many of the next conversions die."""

    async def convert(self, source: Path, filename: str, into: Path) -> None:
        text = _read(source)
        if self.deaths:
            self.deaths -= 1
            raise ConversionFailed("server_error", "The converter died.", transient=True)
        if text.startswith("broken"):
            raise ConversionFailed("invalid_file", "It is damaged.")
        _write(into, text)

    async def chunk(self, document: Path, sizes: Any) -> list[Chunk]:
        lines = _read(document).splitlines()
        return [
            Chunk(text=line, tokens=len(line.split()), headings=["Things"], pages=[number])
            for number, line in enumerate(lines, 1)
            if line.strip()
        ]

    async def aclose(self) -> None:
        pass


@pytest.fixture(scope="module")
async def upstream() -> AsyncIterator[FakeVllm]:
    async with FakeVllm(["fake-embedding"], kind="embedding") as upstream:
        yield upstream


@pytest.fixture(scope="module")
async def gateway(
    upstream: FakeVllm, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[InProcessGateway]:
    async with InProcessGateway(
        discover=[upstream.url],
        models=["fake-embedding"],
        data_dir=str(tmp_path_factory.mktemp("gateway")),
    ) as gateway:
        yield gateway


class Ingestion:
    """The pipeline's steps over one bucket and one store."""

    def __init__(self, gateway: InProcessGateway, store: RemoteStore, folder: Path) -> None:
        self.gateway = gateway
        self.store = store
        self.folder = folder
        self.bucket = MemoryBucket()
        self.converter = Lines()
        self.plan_file = folder / "plan"

    async def plan(self, sizes: Sizes = Sizes(), **attributes: Any) -> Plan:  # noqa: B008
        planner = BulkPlanner(self.bucket, self.store, bucket_name="b", per_shard=100)
        plan, documents = await planner.make("", sizes, attributes)
        write_plan(self.plan_file, plan, documents)
        return plan

    async def convert(self) -> None:
        plan, documents = read_plan(self.plan_file, 0)
        chunks = self.folder / "chunks"
        await convert_documents(plan, documents, self.bucket, self.converter, chunks)

    async def embed(self) -> None:
        plan, _ = read_plan(self.plan_file)
        await embed_documents(plan, self.folder / "chunks", self.store, self.folder / "vectors")

    async def insert(self) -> tuple[Outcome, list[Failure]]:
        plan, _ = read_plan(self.plan_file)
        return await insert_documents(plan, self.folder / "vectors", self.bucket, self.store)

    async def run(self) -> tuple[Outcome, list[Failure]]:
        """All of it."""
        await self.plan()
        await self.convert()
        await self.embed()
        return await self.insert()

    async def files(self) -> dict[str, dict[str, Any]]:
        """What the store has, by source; each once."""
        async with self.gateway.client() as client:
            answer = await client.get(f"/v1/vector_stores/{self.store.id}/files?limit=100")
        found = {one["attributes"]["source"]: one for one in answer.json()["data"]}
        assert len(found) == len(answer.json()["data"])
        return found

    async def search(self, query: str) -> list[dict[str, Any]]:
        body = {"query": query, "search_mode": "keyword"}
        async with self.gateway.client() as client:
            answer = await client.post(f"/v1/vector_stores/{self.store.id}/search", json=body)
        return answer.json()["data"]


@pytest.fixture
async def ingestion(gateway: InProcessGateway, tmp_path: Path) -> AsyncIterator[Ingestion]:
    async with RemoteStore(gateway.base_url, None) as store:
        await store.create(tmp_path.name, None)
        yield Ingestion(gateway, store, tmp_path)


async def test_documents_are_searchable_with_their_place(ingestion: Ingestion):
    """Each is a file whose attributes say where it is from; headings are searched too."""
    ingestion.bucket = MemoryBucket(boat="The boat is blue.\nIt floats.", lamp="The lamp is on.")
    outcome, failures = await ingestion.run()
    assert (outcome.done, outcome.failed, failures) == (2, 0, [])
    files = await ingestion.files()
    assert sorted(files) == ["s3://b/boat.txt", "s3://b/lamp.txt"]
    boat = files["s3://b/boat.txt"]
    assert boat["attributes"]["chunks"] == 2
    assert (boat["status"], boat["chunking_strategy"]) == ("completed", {"type": "other"})
    assert [one["file_id"] for one in await ingestion.search("floats")] == [boat["id"]]
    assert len(await ingestion.search("Things")) == 3
    async with ingestion.gateway.client() as client:
        content = await client.get(f"/v1/files/{boat['id']}/content")
    assert content.text == "The boat is blue.\nIt floats."


async def test_it_works_with_llamastacks_names_too(upstream: FakeVllm, tmp_path: Path):
    """In that profile a model's id has a slash, and a key travels with every call."""
    async with (
        InProcessGateway(
            discover=[upstream.url],
            models=["fake-embedding"],
            data_dir=str(tmp_path / "data"),
            server={"profile": "llamastack"},
        ) as gateway,
        RemoteStore(gateway.base_url, "a-key") as store,
    ):
        await store.create("names", None)
        ingestion = Ingestion(gateway, store, tmp_path)
        ingestion.bucket = MemoryBucket(boat="The boat is blue.")
        outcome, failures = await ingestion.run()
        assert (outcome.done, failures) == (1, [])
        assert len(await ingestion.search("boat")) == 1


async def test_a_step_that_is_run_again_changes_nothing(ingestion: Ingestion):
    """As after the death of its pod: what is done is left alone, what is half done is replaced."""
    ingestion.bucket = MemoryBucket(boat="The boat is blue.", lamp="The lamp is on.")
    await ingestion.run()
    before = await ingestion.files()
    lamp = before["s3://b/lamp.txt"]
    half = {key: value for key, value in lamp["attributes"].items() if key != "chunks"}
    await ingestion.store.set_attributes(lamp["id"], half)
    outcome, _ = await ingestion.insert()
    assert (outcome.done, outcome.failed) == (2, 0)
    after = await ingestion.files()
    assert after["s3://b/boat.txt"]["id"] == before["s3://b/boat.txt"]["id"]
    assert after["s3://b/lamp.txt"]["id"] != lamp["id"]
    assert len(await ingestion.search("lamp")) == 1


async def test_a_plan_has_what_is_new_or_changed(ingestion: Ingestion):
    """The old version is there until the new one is, and then it is gone with its file."""
    ingestion.bucket = MemoryBucket(boat="The boat is blue.", lamp="The lamp is on.")
    await ingestion.run()
    old = (await ingestion.files())["s3://b/boat.txt"]["id"]
    ingestion.bucket.documents["boat.txt"] = "The boat is green."
    plan = await ingestion.plan()
    assert (plan.documents, plan.unchanged) == (1, 1)
    await ingestion.convert()
    await ingestion.embed()
    assert [one["file_id"] for one in await ingestion.search("boat")] == [old]
    await ingestion.insert()
    [hit] = await ingestion.search("boat")
    assert hit["content"][0]["text"] == "The boat is green."
    async with ingestion.gateway.client() as client:
        assert (await client.get(f"/v1/files/{old}")).status_code == 404
    plan = await ingestion.plan()
    assert (plan.documents, plan.unchanged, plan.shards) == (0, 2, 0)


async def test_a_plan_tidies_up_after_a_run_that_broke_off(ingestion: Ingestion):
    """A second copy of a document that is there is removed."""
    ingestion.bucket = MemoryBucket(boat="The boat is blue.")
    await ingestion.run()
    [boat] = (await ingestion.files()).values()
    stray = await ingestion.store.upload(_file(ingestion.folder), "boat.txt", lambda file: file)
    half = {"source": "s3://b/boat.txt", "etag": boat["attributes"]["etag"]}
    await ingestion.store.attach(stray, half, None)
    plan = await ingestion.plan()
    assert (plan.documents, plan.unchanged) == (0, 1)
    assert [one["id"] for one in (await ingestion.files()).values()] == [boat["id"]]


async def test_other_attributes_and_other_sizes(ingestion: Ingestion):
    """New attributes are written at once; another size of chunks means doing it again."""
    ingestion.bucket = MemoryBucket(boat="The boat is blue.")
    await ingestion.run()
    plan = await ingestion.plan(team="harbour")
    assert (plan.documents, plan.unchanged, plan.described) == (0, 0, 1)
    assert (await ingestion.files())["s3://b/boat.txt"]["attributes"]["team"] == "harbour"
    plan = await ingestion.plan(Sizes(size=300))
    assert (plan.documents, plan.chunking) == (1, "300/150")


async def test_one_document_fails_alone(ingestion: Ingestion):
    """A damaged one, an empty one and one that changes meanwhile; nothing of them stays."""
    ingestion.bucket = MemoryBucket(
        boat="The boat is blue.",
        door="The door is shut.",
        empty=" ",
        lamp="broken",
        safe="The safe is shut.",
    )
    await ingestion.plan()
    del ingestion.bucket.documents["door.txt"]
    await ingestion.convert()
    await ingestion.embed()
    ingestion.bucket.documents["safe.txt"] = "The safe is open."
    outcome, failures = await ingestion.insert()
    assert (outcome.done, outcome.failed) == (1, 4)
    assert {one.key: one.why for one in failures} == {
        "door.txt": "door.txt has changed since it was listed.",
        "empty.txt": "No text was found in it.",
        "lamp.txt": "It is damaged.",
        "safe.txt": "safe.txt has changed since it was listed.",
    }
    assert sorted(await ingestion.files()) == ["s3://b/boat.txt"]


async def test_what_the_model_refuses_fails_alone(ingestion: Ingestion, upstream: FakeVllm):
    """The document's own failure, with the model's reason; the others go on."""
    ingestion.bucket = MemoryBucket(boat="The boat is blue.", lamp="The lamp is on.")
    await ingestion.plan()
    await ingestion.convert()
    upstream.behave("/v1/embeddings", faults.vllm_error(400, "too long for me"), times=1)
    await ingestion.embed()
    outcome, [failure] = await ingestion.insert()
    assert (outcome.done, failure.key) == (1, "boat.txt")
    assert "too long for me" in failure.why


async def test_what_cannot_be_removed_fails_alone(
    ingestion: Ingestion, upstream: FakeVllm, monkeypatch: pytest.MonkeyPatch
):
    """Half a document that stays is said of that document; the others go on."""
    ingestion.bucket = MemoryBucket(boat="The boat is blue.", lamp="The lamp is on.")
    await ingestion.plan()
    await ingestion.convert()
    await ingestion.embed()

    async def refuse(*_: object, **__: object) -> None:
        raise Refused("it is held")

    inserted = ingestion.store.insert

    async def first_refused(chunks: list[dict[str, object]]) -> None:
        monkeypatch.setattr(ingestion.store, "insert", inserted)
        raise Refused("no room")

    monkeypatch.setattr(ingestion.store, "delete_file", refuse)
    monkeypatch.setattr(ingestion.store, "insert", first_refused)
    outcome, [failure] = await ingestion.insert()
    assert (outcome.done, failure.key) == (1, "boat.txt")
    assert "no room" in failure.why
    assert "can't be removed: it is held" in failure.why


async def test_a_converter_that_dies_is_asked_again(
    ingestion: Ingestion, monkeypatch: pytest.MonkeyPatch
):
    """Twice; a document that kills it every time fails."""
    monkeypatch.setattr("gateway.ingestion.bulk_steps._PAUSE_SECONDS", 0.0)
    ingestion.bucket = MemoryBucket(boat="The boat is blue.")
    ingestion.converter.deaths = 2
    outcome, _ = await ingestion.run()
    assert outcome.done == 1
    ingestion.bucket = MemoryBucket(lamp="The lamp is on.")
    ingestion.converter.deaths = 9
    _, [failure] = await ingestion.run()
    assert failure.why == "The converter died."


async def test_a_gateway_that_is_away_fails_the_step(
    ingestion: Ingestion, monkeypatch: pytest.MonkeyPatch
):
    """Not the documents: the pipeline runs the step again."""
    ingestion.bucket = MemoryBucket(boat="The boat is blue.")
    await ingestion.plan()
    await ingestion.convert()
    monkeypatch.setattr("gateway.ingestion.remote_store._LONGEST_PAUSE_SECONDS", 0.01)

    async def unreachable(*_: object, **__: object) -> httpx.Response:
        raise httpx.ConnectError("no route to host")

    monkeypatch.setattr(ingestion.store._client, "request", unreachable)
    with pytest.raises(Away, match="no route to host"):
        await ingestion.embed()


def test_an_outcome_stays_short():
    """However many documents failed, and whatever they say; all are counted."""
    from gateway.ingestion.bulk_steps import _outcome

    many = [Failure(key=f"{number}" * 300, why="x" * 1000) for number in range(500)]
    outcome = _outcome(_plan(shards=200), 7, many)
    assert (outcome.done, outcome.failed) == (7, 500)
    assert 200 * len(msgspec.json.encode(outcome)) < 131_072  # Linux's longest argument


def test_a_report_counts_and_names():
    """Failures of all shards and of the plan, in a table that odd names don't break."""
    plan = _plan(failures=[Failure(key="long", why="Its name is too long.")], unchanged=4)
    outcomes = [
        Outcome(done=3, failed=0),
        Outcome(done=0, failed=2, failures=[Failure(key="a|b\nc", why="It is damaged.")]),
    ]
    text = report(plan, outcomes)
    assert failed_documents(plan, outcomes) == 3
    for line in ("- 3 brought in", "- 4 unchanged", "- 3 failed"):
        assert line in text
    assert "| a\\|b c | It is damaged. |" in text
    assert "1 more are in the logs of the insert tasks." in text


def _plan(**fields: Any) -> Plan:
    return Plan(
        **{
            "store_id": "vs_1",
            "embedding_model": "m",
            "chunk_size": 800,
            "chunk_overlap": 400,
            "cut": False,
            "started": 0,
            "shards": 1,
            "documents": 0,
            "unchanged": 0,
            "described": 0,
            "attributes": {},
            **fields,
        }
    )


def _read(file: Path) -> str:
    return file.read_text()


def _write(file: Path, text: str) -> None:
    file.write_text(text)


def _file(folder: Path) -> Path:
    file = folder / "stray.txt"
    file.write_text("The boat is blue.")
    return file
