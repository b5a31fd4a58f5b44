"""One file on its way into a vector store, on both databases: what is written, how it ends, and
what a second attempt does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from gateway.database.engine import Database
from gateway.database.identifiers import now
from gateway.database.tables import ChunkRow, FileRow, VectorStoreFileRow, VectorStoreRow
from gateway.errors import UpstreamUnavailable
from gateway.ports import ConversionFailed, TryAgain
from tests.support.ingestion import MODEL, Ingestion, job, transient
from tests.support.inprocess import InProcessGateway
from tests.support.memory import MemoryVectorIndex
from tests.support.upstream import FakeVllm, faults

pytestmark = pytest.mark.anyio

PATH = "/v1/embeddings"
TEXT = "# Harbour\n\nThe lighthouse is red.\n\nIt was built in 1870.\n\n# Boats\n\nTwo are blue."
MANY = "\n\n".join(f"Paragraph number {number} is about gulls." for number in range(250))


@pytest.fixture(scope="module")
async def models() -> AsyncIterator[tuple[FakeVllm, FakeVllm]]:
    """A chat and an embedding server."""
    async with (
        FakeVllm(["fake-chat"]) as chat,
        FakeVllm([MODEL], kind="embedding") as embedding,
    ):
        yield chat, embedding


@pytest.fixture(scope="module")
async def gateway(
    models: tuple[FakeVllm, FakeVllm], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[InProcessGateway]:
    """Only its relay is used here, so one serves all."""
    async with InProcessGateway(
        discover=[one.url for one in models],
        models=["fake-chat", MODEL],
        embedding={"batch_size": 4},
        ingestion={"embedded_worker": False},
        data_dir=str(tmp_path_factory.mktemp("gateway")),
    ) as gateway:
        yield gateway


@pytest.fixture
def upstream(models: tuple[FakeVllm, FakeVllm]) -> FakeVllm:
    """The chat server, as if it were new."""
    return _fresh(models[0])


@pytest.fixture(autouse=True)
def embedding_upstream(models: tuple[FakeVllm, FakeVllm]) -> FakeVllm:
    """The embedding server, as if it were new."""
    return _fresh(models[1])


def _fresh(server: FakeVllm) -> FakeVllm:
    server.reset()
    server.requests.clear()
    return server


@pytest.fixture
async def ingestion(
    database: Database, gateway: InProcessGateway, tmp_path: Path
) -> AsyncIterator[Ingestion]:
    made = Ingestion(database, tmp_path, gateway)
    async with made.workspace.open():
        yield made
    await made.objects.aclose()


class FailingIndex(MemoryVectorIndex):
    """Raises at the n-th write."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at

    async def upsert(self, store: Any, chunks: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise UpstreamUnavailable("The index can't be reached.")
        await super().upsert(store, chunks)


def embedded(upstream: FakeVllm) -> list[str]:
    """Every text that the embedding model was asked for, probes aside."""
    asked = [one for one in upstream.requests_to(PATH) if "traceparent" in one.headers]
    return [text for one in asked for text in json.loads(one.body)["input"]]


# ------------------------------------------------------------------------------------- completed


async def test_a_file_is_completed_with_its_chunks(ingestion: Ingestion):
    """Rows and vectors are there, in order, with the headings embedded and indexed as well."""
    store = await ingestion.make_store()
    attachment = await ingestion.attach(store, await ingestion.make_file(TEXT))
    row = await ingestion.ingest(attachment)
    assert (row.status, row.error_code, row.attempt) == ("completed", None, 1)
    assert row.finished_at is not None
    chunks = await ingestion.chunks(attachment)
    assert [one.text for one in chunks] == [
        "The lighthouse is red.", "It was built in 1870.", "Two are blue.",
    ]  # fmt: skip
    assert [one.headings for one in chunks] == [["Harbour"], ["Harbour"], ["Boats"]]
    assert ingestion.indexed(store) == {
        f"{attachment}-0": "Harbour\n\nThe lighthouse is red.",
        f"{attachment}-1": "Harbour\n\nIt was built in 1870.",
        f"{attachment}-2": "Boats\n\nTwo are blue.",
    }
    assert row.usage_bytes > 3 * 4 * store.dimension


async def test_a_file_of_many_chunks_is_written_in_batches(
    ingestion: Ingestion, embedding_upstream: FakeVllm
):
    """Every vector is that of its own text, and each text was embedded once."""
    store = await ingestion.make_store()
    attachment = await ingestion.attach(store, await ingestion.make_file(MANY))
    assert (await ingestion.ingest(attachment)).status == "completed"
    assert len(await ingestion.chunks(attachment)) == 250
    assert len(embedded(embedding_upstream)) == 250
    asked = ingestion.index.chunks[store.store_id][f"{attachment}-249"]
    [best] = await ingestion.index.search(store, asked.vector, 1)
    assert best.id == f"{attachment}-249"


async def test_the_conversion_is_kept_and_used_again(ingestion: Ingestion):
    """A file in two stores is converted once."""
    file = await ingestion.make_file(TEXT)
    for _ in range(2):
        attachment = await ingestion.attach(await ingestion.make_store(), file)
        assert (await ingestion.ingest(attachment)).status == "completed"
    assert ingestion.converter.conversions == 1
    assert await ingestion.objects.size(file.document_key) > 0


async def test_unchanged_chunks_are_not_embedded_again(
    ingestion: Ingestion, embedding_upstream: FakeVllm
):
    """A second file that shares chunks with the first one, in another store, needs the rest."""
    first = await ingestion.attach(
        await ingestion.make_store(), await ingestion.make_file("One.\n\nTwo.\n\nTwo.")
    )
    await ingestion.ingest(first)
    assert sorted(embedded(embedding_upstream)) == ["One.", "Two."]
    store = await ingestion.make_store()
    second = await ingestion.attach(store, await ingestion.make_file("Two.\n\nThree.\n\nOne."))
    assert (await ingestion.ingest(second)).status == "completed"
    assert embedded(embedding_upstream)[2:] == ["Three."]
    assert len(ingestion.indexed(store)) == 3


async def test_nothing_is_taken_over_from_what_is_not_visible(
    ingestion: Ingestion, embedding_upstream: FakeVllm
):
    """Vectors of a file that is being removed are on their way out."""
    first = await ingestion.attach(await ingestion.make_store(), await ingestion.make_file("One."))
    await ingestion.ingest(first)
    await ingestion.change(VectorStoreFileRow, first, deleted_at=now())
    second = await ingestion.attach(await ingestion.make_store(), await ingestion.make_file("One."))
    await ingestion.ingest(second)
    assert embedded(embedding_upstream) == ["One.", "One."]


async def test_the_work_folder_is_empty_afterwards(ingestion: Ingestion, tmp_path: Path):
    """Nothing of the file stays on the local disk."""
    attachment = await ingestion.attach(
        await ingestion.make_store(), await ingestion.make_file(TEXT)
    )
    await ingestion.ingest(attachment)
    assert [one for one in (tmp_path / "work").rglob("*") if one.is_file()] == [
        *(tmp_path / "work").glob("*.lock")
    ]


# ---------------------------------------------------------------------------------------- failed


@pytest.mark.parametrize("code", ["unsupported_file", "invalid_file", "server_error"])
async def test_what_can_t_be_converted_fails_with_the_reason(ingestion: Ingestion, code: Any):
    """`last_error` is what the converter said, after one attempt."""
    ingestion.converter.failure = ConversionFailed(code, "The file is encrypted.")
    attachment = await ingestion.attach(
        await ingestion.make_store(), await ingestion.make_file(TEXT)
    )
    row = await ingestion.ingest(attachment)
    assert (row.status, row.error_code) == ("failed", code)
    assert row.error_message == "The file is encrypted."


async def test_a_file_without_text_fails(ingestion: Ingestion):
    """There would be nothing to find."""
    attachment = await ingestion.attach(
        await ingestion.make_store(), await ingestion.make_file("# Only a heading")
    )
    row = await ingestion.ingest(attachment)
    assert (row.status, row.error_code) == ("failed", "invalid_file")
    assert "No text" in (row.error_message or "")


async def test_one_chunk_too_long_among_small_ones_is_embedded_by_its_beginning(
    ingestion: Ingestion,
):
    """A table of numbers doesn't fail a document whose chunks suit the model; its text is kept."""
    store = await ingestion.make_store()
    text = MANY + "\n\n" + "word " * 100_000
    attachment = await ingestion.attach(
        store,
        await ingestion.make_file(text),
        chunking={"type": "static", "static": {"max_chunk_size_tokens": 150}},
    )
    row = await ingestion.ingest(attachment)
    assert row.status == "completed"
    async with ingestion.database.read() as session:
        longest = (await session.execute(select(func.max(func.length(ChunkRow.text))))).scalar_one()
    assert longest >= len("word " * 100_000) - 1


async def test_too_many_chunks_fail_the_file(database, gateway, tmp_path):
    """The limit is named, and what helps."""
    ingestion = Ingestion(database, tmp_path, gateway, max_chunks=2)
    attachment = await ingestion.attach(
        await ingestion.make_store(), await ingestion.make_file(TEXT)
    )
    row = await ingestion.ingest(attachment)
    assert row.error_code == "invalid_file"
    assert "3 chunks; the limit is 2" in (row.error_message or "")


async def test_chunks_larger_than_the_model_takes_fail_the_file(ingestion: Ingestion):
    """Nothing of it stays behind, and the message names the setting that helps."""
    store = await ingestion.make_store()
    text = MANY + "\n\n" + "word " * 100_000
    attachment = await ingestion.attach(
        store,
        await ingestion.make_file(text),
        chunking={"type": "static", "static": {"max_chunk_size_tokens": 100_000}},
    )
    row = await ingestion.ingest(attachment)
    assert (row.status, row.error_code) == ("failed", "server_error")
    assert "max_chunk_size_tokens" in (row.error_message or "")
    assert ingestion.indexed(store) == {}
    assert await ingestion.count(ChunkRow) == 0


async def test_a_file_whose_content_is_gone_fails(ingestion: Ingestion):
    """It is not waited for."""
    file = await ingestion.make_file(TEXT)
    await ingestion.objects.delete([file.object_key])
    attachment = await ingestion.attach(await ingestion.make_store(), file)
    row = await ingestion.ingest(attachment)
    assert (row.status, row.error_code) == ("failed", "server_error")
    assert "Upload the file again" in (row.error_message or "")


async def test_a_file_that_was_deleted_before_its_turn_fails(ingestion: Ingestion):
    """Its place in the store doesn't stay in progress."""
    file = await ingestion.make_file(TEXT)
    attachment = await ingestion.attach(await ingestion.make_store(), file)
    await ingestion.change(FileRow, file.id, deleted_at=now())
    assert (await ingestion.ingest(attachment)).status == "failed"


# --------------------------------------------------------------------------------------- retried


async def test_a_passing_fault_is_tried_again_with_growing_pauses(ingestion: Ingestion):
    """The file stays in progress until it succeeds."""
    ingestion.converter.failure = transient()
    attachment = await ingestion.attach(
        await ingestion.make_store(), await ingestion.make_file(TEXT)
    )
    pauses = []
    for _ in range(3):
        with pytest.raises(TryAgain) as raised:
            await ingestion.service.ingest(job("ingest_file", attachment))
        pauses.append(raised.value.seconds)
        assert (await ingestion.row(attachment)).status == "in_progress"
    assert pauses == [5, 20, 80]
    ingestion.converter.failure = None
    assert (await ingestion.ingest(attachment)).status == "completed"


async def test_an_outage_of_a_minute_fails_no_file(ingestion: Ingestion):
    """The pauses before the last attempt add up to more than that."""
    ingestion.converter.failure = transient()
    attachment = await ingestion.attach(
        await ingestion.make_store(), await ingestion.make_file(TEXT)
    )
    waited = 0.0
    while True:
        try:
            await ingestion.service.ingest(job("ingest_file", attachment))
        except TryAgain as again:
            waited += again.seconds
        else:
            break
    assert 60 < waited < 3600
    row = await ingestion.row(attachment)
    assert (row.status, row.error_code) == ("failed", "server_error")
    assert row.error_message == "Given up after 5 attempts. The last one: The converter died."


async def test_an_embedding_model_that_is_away_is_waited_for(
    ingestion: Ingestion, embedding_upstream: FakeVllm
):
    """503 of the model server is no verdict on the file."""
    embedding_upstream.behave(PATH, faults.unavailable())
    attachment = await ingestion.attach(
        await ingestion.make_store(), await ingestion.make_file(TEXT)
    )
    with pytest.raises(TryAgain):
        await ingestion.service.ingest(job("ingest_file", attachment))
    embedding_upstream.reset()
    assert (await ingestion.ingest(attachment)).status == "completed"


async def test_a_second_attempt_embeds_only_what_the_first_one_has_not(
    database, gateway, tmp_path, embedding_upstream
):
    """The index failed in the middle; what it had taken is taken over."""
    ingestion = Ingestion(database, tmp_path, gateway, index=FailingIndex(at=2))
    store = await ingestion.make_store()
    attachment = await ingestion.attach(store, await ingestion.make_file(MANY))
    with pytest.raises(TryAgain):
        await ingestion.service.ingest(job("ingest_file", attachment))
    assert len(await ingestion.chunks(attachment)) == 200
    before = len(embedded(embedding_upstream))
    assert (await ingestion.ingest(attachment)).status == "completed"
    again = embedded(embedding_upstream)[before:]
    assert len(again) == 50
    assert len(ingestion.indexed(store)) == len(await ingestion.chunks(attachment)) == 250


async def test_chunks_of_another_cut_are_replaced(ingestion: Ingestion):
    """A second attempt that cuts differently leaves nothing of the first one."""
    store = await ingestion.make_store()
    file = await ingestion.make_file("One.\n\nTwo.\n\nThree.")
    attachment = await ingestion.attach(store, file)
    await ingestion.ingest(attachment)
    await ingestion.change(VectorStoreFileRow, attachment, status="in_progress")
    await ingestion.objects.delete([file.document_key])
    await ingestion.objects.put(file.object_key, _once(b"One.\n\nOther."))
    assert (await ingestion.ingest(attachment)).status == "completed"
    assert list(ingestion.indexed(store).values()) == ["One.", "Other."]
    assert [one.text for one in await ingestion.chunks(attachment)] == ["One.", "Other."]


async def test_a_file_whose_worker_always_dies_is_failed(database, gateway, tmp_path):
    """An attempt that leaves no word counts as well."""
    ingestion = Ingestion(database, tmp_path, gateway, max_attempts=2)
    attachment = await ingestion.attach(
        await ingestion.make_store(), await ingestion.make_file(TEXT)
    )
    for _ in range(2):
        assert await ingestion.repository.claim("default", attachment) is not None
    row = await ingestion.ingest(attachment)
    assert (row.status, row.error_code) == ("failed", "server_error")
    assert "Given up after 2 attempts" in (row.error_message or "")


# ----------------------------------------------------------------------------------- not wanted


@pytest.mark.parametrize(
    "end",
    [
        (VectorStoreFileRow, {"deleted_at": 1}),
        (VectorStoreFileRow, {"status": "cancelled"}),
        (VectorStoreRow, {"deleted_at": 1}),
    ],
    ids=["detached", "cancelled", "store deleted"],
)
async def test_what_is_not_wanted_any_more_is_left_alone(
    database, gateway, tmp_path, end: tuple[Any, dict[str, Any]]
):
    """The worker stops within a batch and removes what it has written."""
    table, values = end

    class Ending(MemoryVectorIndex):
        async def upsert(self, store: Any, chunks: Any) -> None:
            await super().upsert(store, chunks)
            target = attachment if table is VectorStoreFileRow else store.store_id
            await ingestion.change(table, target, **values)

    ingestion = Ingestion(database, tmp_path, gateway, index=Ending())
    store = await ingestion.make_store()
    attachment = await ingestion.attach(store, await ingestion.make_file(MANY))
    row = await ingestion.ingest(attachment)
    assert row.status != "completed"
    assert ingestion.indexed(store) == {}
    assert await ingestion.count(ChunkRow) == 0


async def test_a_row_that_is_gone_altogether_is_no_fault(database, gateway, tmp_path):
    """The job that removes it was quicker; nothing stays in the index."""

    class Removing(MemoryVectorIndex):
        async def upsert(self, store: Any, chunks: Any) -> None:
            await super().upsert(store, chunks)
            await ingestion.change(VectorStoreFileRow, attachment, deleted_at=1)
            await ingestion.clean("delete_attachment", attachment)
            await super().upsert(store, chunks)

    ingestion = Ingestion(database, tmp_path, gateway, index=Removing())
    store = await ingestion.make_store()
    attachment = await ingestion.attach(store, await ingestion.make_file(TEXT))
    await ingestion.service.ingest(job("ingest_file", attachment))
    assert ingestion.indexed(store) == {}
    assert await ingestion.count(VectorStoreFileRow) == 0


async def test_a_worker_that_was_overtaken_keeps_its_hands_off(database, gateway, tmp_path):
    """The one that took the file over completes it; the first one's last word doesn't count."""
    overtaken = False

    class Overtaking(MemoryVectorIndex):
        async def settle(self, store: Any) -> None:
            nonlocal overtaken
            if not overtaken:
                overtaken = True
                await ingestion.service.ingest(job("ingest_file", attachment))

    ingestion = Ingestion(database, tmp_path, gateway, index=Overtaking())
    store = await ingestion.make_store()
    attachment = await ingestion.attach(store, await ingestion.make_file(TEXT))
    row = await ingestion.ingest(attachment)
    assert (row.status, row.attempt) == ("completed", 2)
    assert len(ingestion.indexed(store)) == 3


async def test_a_second_job_for_a_completed_file_does_nothing(
    ingestion: Ingestion, embedding_upstream: FakeVllm
):
    """A job may run twice."""
    store = await ingestion.make_store()
    attachment = await ingestion.attach(store, await ingestion.make_file(TEXT))
    await ingestion.ingest(attachment)
    asked = len(embedded(embedding_upstream))
    assert (await ingestion.ingest(attachment)).attempt == 1
    assert len(embedded(embedding_upstream)) == asked
    assert len(ingestion.indexed(store)) == 3


# ------------------------------------------------------------------------------------- telemetry


async def test_an_attempt_is_a_trace_linked_to_the_request(
    ingestion: Ingestion, gateway: InProcessGateway
):
    """Its steps are spans below it, and none of them holds text of the file."""
    cause = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    file = await ingestion.make_file(TEXT, filename="secret-plans.txt")
    store = await ingestion.make_store()
    await ingestion.ingest(await ingestion.attach(store, file, traceparent=cause))
    root = await gateway.span("ingest")
    assert [f"{one.context.trace_id:032x}" for one in root.links] == [cause.split("-")[1]]
    assert root.attributes["understudy.vector_store.id"] == store.store_id
    assert root.attributes["understudy.ingestion.status"] == "completed"
    for name in ("convert", "chunk", "embed", "index"):
        assert (await gateway.span(name)).parent.span_id == root.context.span_id
    embedding = await gateway.span("embed")
    assert (await gateway.span(f"embeddings {MODEL}")).parent.span_id == embedding.context.span_id
    mine = [one for one in gateway.spans() if one.context.trace_id == root.context.trace_id]
    everything = str([dict(one.attributes or {}) for one in mine])
    assert "lighthouse" not in everything
    assert "secret-plans" not in everything


async def test_attempts_and_chunks_are_counted(ingestion: Ingestion, gateway: InProcessGateway):
    """By how they ended and where the vectors came from."""
    count = "understudy_ingestion_duration_seconds_count"
    chunks, wait = "understudy_ingestion_chunks_sum", "understudy_ingestion_wait_seconds_count"

    def counts() -> list[float]:
        return [
            gateway.metric(count, understudy_ingestion_status="completed"),
            gateway.metric(count, understudy_ingestion_status="failed"),
            gateway.metric(chunks, understudy_chunk_source="embedded"),
            gateway.metric(chunks, understudy_chunk_source="reused"),
            gateway.metric(wait),
        ]

    before = counts()
    file = await ingestion.make_file("One.\n\nTwo.")
    for _ in range(2):
        await ingestion.ingest(await ingestion.attach(await ingestion.make_store(), file))
    empty = await ingestion.make_file("# Nothing")
    await ingestion.ingest(await ingestion.attach(await ingestion.make_store(), empty))
    assert [after - old for after, old in zip(counts(), before, strict=True)] == [2, 1, 2, 2, 3]
    assert gateway.metric("understudy_ingestion_active") == 0


# ------------------------------------------------------------------------------------ contextual

CONTEXTUAL = {
    "type": "contextual",
    "contextual": {
        "model_id": "fake-chat",
        "context_prompt": "Whole: {{WHOLE_DOCUMENT}} Chunk: {{CHUNK_CONTENT}}",
        "max_chunk_size_tokens": 700,
        "chunk_overlap_tokens": 400,
        "timeout_seconds": 5,
        "max_concurrency": 2,
    },
}
CHAT = "/v1/chat/completions"


async def test_a_model_writes_the_context_of_each_chunk(ingestion: Ingestion, upstream: FakeVllm):
    """It is stored beside the text, and embedded and indexed in front of it."""
    store = await ingestion.make_store()
    file = await ingestion.make_file("One.\n\nTwo has {{WHOLE_DOCUMENT}} in it.")
    attachment = await ingestion.attach(store, file, chunking=CONTEXTUAL)
    assert (await ingestion.ingest(attachment)).status == "completed"
    chunks = await ingestion.chunks(attachment)
    assert [one.context for one in chunks] == ["The capital of France is Paris."] * 2
    assert chunks[0].text == "One."
    first = ingestion.indexed(store)[f"{attachment}-0"]
    assert first == "The capital of France is Paris.\n\nOne."
    prompts = [json.loads(one.body)["messages"][0]["content"] for one in upstream.requests_to(CHAT)]
    whole = "One.\n\nTwo has {{WHOLE_DOCUMENT}} in it."
    assert sorted(prompts) == [
        f"Whole: {whole} Chunk: One.",
        f"Whole: {whole} Chunk: Two has {{{{WHOLE_DOCUMENT}}}} in it.",
    ]


async def test_contexts_are_not_asked_for_twice(
    ingestion: Ingestion, upstream: FakeVllm, embedding_upstream: FakeVllm
):
    """A second attempt takes those that the first one has written."""
    store = await ingestion.make_store()
    attachment = await ingestion.attach(
        store, await ingestion.make_file("One.\n\nTwo."), chunking=CONTEXTUAL
    )
    await ingestion.ingest(attachment)
    await ingestion.change(VectorStoreFileRow, attachment, status="in_progress")
    asked = len(upstream.requests_to(CHAT)), len(embedded(embedding_upstream))
    assert (await ingestion.ingest(attachment)).status == "completed"
    assert (len(upstream.requests_to(CHAT)), len(embedded(embedding_upstream))) == asked


async def test_a_chat_model_that_stumbles_is_asked_again(ingestion: Ingestion, upstream: FakeVllm):
    """One refusal for want of room is no reason to fail."""
    upstream.behave(CHAT, faults.overloaded(), times=1)
    attachment = await ingestion.attach(
        await ingestion.make_store(), await ingestion.make_file("One."), chunking=CONTEXTUAL
    )
    assert (await ingestion.ingest(attachment)).status == "completed"


async def test_a_document_longer_than_the_model_takes_is_cut_around_the_chunk(
    ingestion: Ingestion, upstream: FakeVllm
):
    """The prompt holds the chunk and its neighbours."""
    attachment = await ingestion.attach(
        await ingestion.make_store(), await ingestion.make_file(MANY), chunking=CONTEXTUAL
    )
    assert (await ingestion.ingest(attachment)).status == "completed"
    prompts = [json.loads(one.body)["messages"][0]["content"] for one in upstream.requests_to(CHAT)]
    [prompt] = [one for one in prompts if "Chunk: Paragraph number 130 " in one]
    assert "Paragraph number 129" in prompt
    assert "Paragraph number 131" in prompt
    assert "Paragraph number 0 " not in prompt
    assert max(map(len, prompts)) <= 3 * 2048


async def _once(block: bytes) -> AsyncIterator[bytes]:
    yield block
