"""LangChain's OpenAI classes, and LangGraph: prints one line of JSON."""

import json
import os
from typing import Any

import langchain_responses
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

QUESTION = os.environ["QUESTION"]
OPTIONS: dict[str, Any] = {"api_key": "none", "max_retries": 0}


def chat_at(url: str) -> ChatOpenAI:
    """The chat class at this address."""
    model = os.environ["CHAT_MODEL"]
    return ChatOpenAI(base_url=url, model=model, temperature=0, max_tokens=20, **OPTIONS)


def main() -> None:
    """Invoke, stream and embed."""
    chat = chat_at(os.environ["BASE_URL"])
    answer = chat.invoke(QUESTION)
    pieces = [chunk.text for chunk in chat.stream(QUESTION)]
    embeddings = OpenAIEmbeddings(
        base_url=os.environ["BASE_URL"],
        model=os.environ["EMBEDDING_MODEL"],
        check_embedding_ctx_length=False,  # else it fetches OpenAI's tokenizer from the internet
        **OPTIONS,
    )
    vectors = embeddings.embed_documents(["hello world", "a cat sat"])
    print(
        json.dumps(
            {
                "chat": answer.text,
                "usage": answer.usage_metadata,
                "stream": "".join(pieces),
                "pieces": len([piece for piece in pieces if piece]),
                "dimensions": [len(vector) for vector in vectors],
                "legacy": chat_at(os.environ["LEGACY_URL"]).invoke(QUESTION).text,
                "responses": langchain_responses.heard(),
            }
        )
    )


main()
