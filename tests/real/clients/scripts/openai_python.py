"""The official OpenAI SDK for Python, 2.x or 3.x: prints one line of JSON."""

import json
import os
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
                "unknown_model": failure(client, model="no-such-model"),
                "embedding_model": failure(client, model=EMBEDDING),
                "hot": failure(client, temperature="hot"),
                "unknown_model_stream": failure(client, model="no-such-model", stream=True),
            }
        )
    )


main()
