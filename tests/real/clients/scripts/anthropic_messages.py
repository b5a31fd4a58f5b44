"""Anthropic's SDK against `/v1/messages`: prints one line of JSON.

It adds `/v1/messages` to its base URL by itself, so both addresses lose their `/v1`.
"""

import json
import os
from typing import Any

import anthropic

ASK: dict[str, Any] = {
    "model": os.environ["CHAT_MODEL"],
    "messages": [{"role": "user", "content": os.environ["QUESTION"]}],
}


def client_of(url: str) -> anthropic.Anthropic:
    """A client for this address."""
    return anthropic.Anthropic(base_url=url.removesuffix("/v1"), api_key="none", max_retries=0)


def text_of(message: anthropic.types.Message) -> str:
    """The text of a message."""
    return "".join(block.text for block in message.content if block.type == "text")


def failure(client: anthropic.Anthropic, **changes: Any) -> dict[str, Any]:
    """What a program sees that catches the SDK's exception."""
    try:
        client.messages.create(**{**ASK, "max_tokens": 20, **changes})
    except anthropic.APIStatusError as error:
        return {"class": type(error).__name__, "status": error.status_code, "body": error.body}
    return {"class": None}


def main() -> None:
    """Ask, stream and count."""
    client = client_of(os.environ["BASE_URL"])
    ask = {**ASK, "max_tokens": 20, "extra_body": {"temperature": 0}}
    with client.messages.stream(**ask) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    print(
        json.dumps(
            {
                "version": anthropic.__version__,
                "chat": text_of(client.messages.create(**ask)),
                "stream": "".join(pieces),
                "pieces": len(pieces),
                "final": text_of(final),
                "tokens": client.messages.count_tokens(**ASK).input_tokens,
                "legacy": text_of(client_of(os.environ["LEGACY_URL"]).messages.create(**ask)),
                "unknown_model": failure(client, model="no-such-model"),
            }
        )
    )


main()
