"""LlamaStack's client under its name of today: prints one line of JSON.

It adds `/v1/...` to its base URL by itself, so both addresses lose their `/v1`.
"""

import json
import os
import time
from typing import Any

import ogx_client

CHAT = os.environ["CHAT_MODEL"]
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


def client_of(url: str) -> ogx_client.OgxClient:
    """A client for this address."""
    return ogx_client.OgxClient(base_url=url.removesuffix("/v1"), api_key="none", max_retries=0)


def failure(client: ogx_client.OgxClient, **changes: Any) -> dict[str, Any]:
    """What a program sees that catches the client's exception."""
    try:
        client.chat.completions.create(**{**ASK, **changes})
    except ogx_client.APIStatusError as error:
        return {"class": type(error).__name__, "status": error.status_code, "body": error.body}
    return {"class": None}


def documents(client: ogx_client.OgxClient) -> dict[str, Any]:
    """What a program written for LlamaStack does; it does not poll."""
    file = client.files.create(file=("handbook.md", DOCUMENT), purpose="assistants")
    store = client.vector_stores.create(
        name="handbook", extra_body={"embedding_model": os.environ["EMBEDDING_MODEL"]}
    )
    attached = client.vector_stores.files.create(store.id, file_id=file.id)
    hits = client.vector_stores.search(
        store.id, query="LH-407", search_mode="hybrid", max_num_results=2
    ).data
    said = {
        "attached": attached.status,
        "hit": hits[0].content[0].text,
        "store_deleted": client.vector_stores.delete(store.id).deleted,
        "file_deleted": client.files.delete(file.id).deleted,
    }
    try:
        client.vector_stores.retrieve(store.id)
    except ogx_client.APIStatusError as error:
        said["gone"] = error.status_code
    return said


def agents(client: ogx_client.OgxClient) -> dict[str, Any]:
    """The agent half: responses, conversations, prompts and batches."""
    asked: dict[str, Any] = {"model": CHAT, "temperature": 0, "max_output_tokens": 20}
    question = os.environ["QUESTION"]
    made = client.responses.create(input=question, **asked)
    events = [event.type for event in client.responses.create(input=question, stream=True, **asked)]
    talk = client.conversations.create(metadata={"topic": "capitals"})
    client.responses.create(input=question, conversation=talk.id, **asked)
    items = client.conversations.items.list(talk.id, order="asc").data
    prompt = client.prompts.create(prompt="You know {{ what }}.", variables=["what"])
    newer = client.prompts.update(
        prompt.prompt_id,
        prompt="You know all {{ what }}.",
        version=1,
        variables=["what"],
        set_as_default=True,
    )
    prompted = client.responses.create(
        input=question,
        prompt={"id": prompt.prompt_id, "version": "2", "variables": {"what": "capitals"}},
        **asked,
    )
    line = {
        "custom_id": "one",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": ASK,
    }
    lines = client.files.create(file=("lines.jsonl", json.dumps(line).encode()), purpose="batch")
    batch = client.batches.create(
        input_file_id=lines.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    while batch.status in ("validating", "in_progress", "finalizing"):
        time.sleep(0.3)
        batch = client.batches.retrieve(batch.id)
    output = client.files.content(batch.output_file_id or "")  # its text
    said = {
        "text": made.output[-1].content[0].text,
        "listed": made.id in [one.id for one in client.responses.list(limit=50).data],
        "events": [events[0], events[-1]],
        "talk": [item.role for item in items],
        "version": newer.version,
        "versions": len(client.prompts.versions.list(prompt.prompt_id)),
        "prompted": prompted.status,
        "batch": batch.status,
        "line": json.loads(str(output))["custom_id"],
    }
    client.conversations.delete(talk.id)
    client.prompts.delete(prompt.prompt_id)
    client.responses.delete(made.id)
    return said


def main() -> None:
    """Use the client as its README does."""
    client = client_of(os.environ["BASE_URL"])
    chunks = list(client.chat.completions.create(**ASK, stream=True))
    pieces = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    embeddings = client.embeddings.create(
        model=os.environ["EMBEDDING_MODEL"], input=["hello world", "a cat sat"]
    )
    legacy = client_of(os.environ["LEGACY_URL"])
    print(
        json.dumps(
            {
                "version": ogx_client.__version__,
                "models": [model.id for model in client.models.list().data],
                "chat": client.chat.completions.create(**ASK).choices[0].message.content,
                "stream": "".join(pieces),
                "pieces": len([piece for piece in pieces if piece]),
                "dimensions": [len(item.embedding) for item in embeddings.data],
                "legacy": legacy.chat.completions.create(**ASK).choices[0].message.content,
                "documents": documents(client),
                "agents": agents(client),
                "unknown_model": failure(client, model="no-such-model"),
            }
        )
    )


main()
