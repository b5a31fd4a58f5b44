"""The official OpenAI SDK for Python, 2.x or 3.x: prints one line of JSON."""

import json
import os
import time
from typing import Any

import openai

BASE_URL = os.environ["BASE_URL"]
LEGACY_URL = os.environ["LEGACY_URL"]
CHAT = os.environ["CHAT_MODEL"]
EMBEDDING = os.environ["EMBEDDING_MODEL"]
ASK: dict[str, Any] = {
    "model": CHAT,
    "messages": [{"role": "user", "content": os.environ["QUESTION"]}],
    "temperature": 0,
    "max_tokens": 20,
}

DOCUMENT = (
    b"# Keeper's handbook\n\n## Leave\n\nA volunteer gets eleven days of leave a year.\n\n"
    b"## Faults\n\nThe code LH-407 means that the lamp is out.\n"
)


def documents(client: openai.OpenAI) -> dict[str, Any]:
    """Upload, put into a store, wait, search, read back, delete."""
    file = client.files.create(file=("handbook.md", DOCUMENT), purpose="assistants")
    store = client.vector_stores.create(name="handbook", metadata={"team": "keepers"})
    attached = client.vector_stores.files.create_and_poll(
        file.id, vector_store_id=store.id, attributes={"year": 2026, "draft": False}
    )
    uploaded = client.vector_stores.files.upload_and_poll(
        vector_store_id=store.id, file=("note.txt", b"The boat leaves at noon.")
    )
    batch = client.vector_stores.file_batches.upload_and_poll(
        vector_store_id=store.id,
        files=[("one.txt", b"One gull sits on the roof."), ("two.txt", b"Two seals sleep.")],
    )
    query = {"type": "eq", "key": "year", "value": 2026}
    hits = client.vector_stores.search(
        store.id, query="How much leave do volunteers get?", filters=query
    ).data
    content = client.vector_stores.files.content(file.id, vector_store_id=store.id)
    said = {
        "same_bytes": client.files.content(file.id).read() == DOCUMENT,
        "attached": attached.status,
        "uploaded": uploaded.status,
        "batch": [batch.status, batch.file_counts.completed],
        "counts": client.vector_stores.retrieve(store.id).file_counts.completed,
        "listed": len(list(client.vector_stores.files.list(store.id, limit=2))),
        "attributes": attached.attributes,
        "hit_files": sorted({hit.filename for hit in hits}),
        "hit": hits[0].content[0].text,
        "scores": [hit.score for hit in hits],
        "content": "".join(part.text or "" for part in content),
        "store_deleted": client.vector_stores.delete(store.id).deleted,
        "file_deleted": client.files.delete(file.id).deleted,
    }
    try:
        client.vector_stores.retrieve(store.id)
    except openai.APIStatusError as error:
        said["gone"] = [type(error).__name__, error.status_code]
    return said


def responses(client: openai.OpenAI) -> dict[str, Any]:
    """What a program does that has moved from chat completions to responses."""
    asked: dict[str, Any] = {"model": CHAT, "temperature": 0, "max_output_tokens": 20}
    made = client.responses.create(input=os.environ["QUESTION"], **asked)
    with client.responses.stream(input=os.environ["QUESTION"], **asked) as stream:
        events = [event.type for event in stream]
        streamed = stream.get_final_response()
    more = client.responses.create(input="And of Italy?", previous_response_id=made.id, **asked)
    background = client.responses.create(input=os.environ["QUESTION"], background=True, **asked)
    while background.status in ("queued", "in_progress"):
        time.sleep(0.2)
        background = client.responses.retrieve(background.id)
    items = client.responses.input_items.list(more.id).data
    client.responses.delete(made.id)
    try:
        client.responses.retrieve(made.id)
    except openai.APIStatusError as error:
        gone = [type(error).__name__, error.status_code]
    return {
        "text": made.output_text,
        "usage": made.usage.output_tokens,
        "stream": streamed.output_text,
        "events": events,
        "background": background.output_text,
        "items": len(items),
        "gone": gone,
    }


def failure(client: openai.OpenAI, **changes: Any) -> dict[str, Any]:
    """What a program sees that catches the SDK's exception."""
    try:
        client.chat.completions.create(**{**ASK, **changes})
    except openai.APIStatusError as error:
        return {
            "class": type(error).__name__,
            "status": error.status_code,
            "message": error.message,
            "param": error.param,
            "code": error.code,
            "type": error.type,
            "request_id": error.request_id,
        }
    return {"class": None}


def main() -> None:
    """Use the SDK as its README does."""
    client = openai.OpenAI(base_url=BASE_URL, api_key="none", max_retries=0)
    raw = client.chat.completions.with_raw_response.create(**ASK)
    chat = raw.parse()
    chunks = list(
        client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True})
    )
    plain = list(client.chat.completions.create(**ASK, stream=True))
    texts = ["hello world", "a cat sat"]
    packed = client.embeddings.create(model=EMBEDDING, input=texts)
    floats = client.embeddings.create(model=EMBEDDING, input=texts, encoding_format="float")
    legacy = openai.OpenAI(base_url=LEGACY_URL, api_key="none", max_retries=0)
    pieces = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    print(
        json.dumps(
            {
                "version": openai.__version__,
                "models": [model.id for model in client.models.list()],
                "chat": chat.choices[0].message.content,
                "usage": chat.usage.completion_tokens if chat.usage else None,
                "request_id": raw.headers.get("x-request-id"),
                "stream": "".join(pieces),
                "pieces": len([piece for piece in pieces if piece]),
                "stream_usage": [c.usage.completion_tokens for c in chunks if c.usage],
                "unasked_usage": [c.usage.completion_tokens for c in plain if c.usage],
                "empty_choices": len([chunk for chunk in plain if not chunk.choices]),
                "dimensions": [len(item.embedding) for item in packed.data],
                "same_vectors": [item.embedding for item in packed.data]
                == [item.embedding for item in floats.data],
                "legacy": legacy.chat.completions.create(**ASK).choices[0].message.content,
                "documents": documents(client),
                "responses": responses(client),
                "unknown_model": failure(client, model="no-such-model"),
                "embedding_model": failure(client, model=EMBEDDING),
                "hot": failure(client, temperature="hot"),
                "unknown_model_stream": failure(client, model="no-such-model", stream=True),
            }
        )
    )


main()
