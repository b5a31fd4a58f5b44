"""LlamaIndex's OpenAI classes for servers other than OpenAI's: prints one line of JSON.

`OpenAI` itself wants a model name that it knows; `OpenAILike` and `OpenAILikeEmbedding` take any.
"""

import json
import os

from llama_index.core.llms import ChatMessage
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike

QUESTION = [ChatMessage(role="user", content=os.environ["QUESTION"])]


def chat_at(url: str) -> OpenAILike:
    """The chat class at this address."""
    return OpenAILike(
        model=os.environ["CHAT_MODEL"],
        api_base=url,
        api_key="none",
        is_chat_model=True,
        temperature=0,
        max_tokens=20,
        max_retries=0,
    )


def main() -> None:
    """Chat, stream and embed."""
    chat = chat_at(os.environ["BASE_URL"])
    pieces = [part.delta or "" for part in chat.stream_chat(QUESTION)]
    embeddings = OpenAILikeEmbedding(
        model_name=os.environ["EMBEDDING_MODEL"],
        api_base=os.environ["BASE_URL"],
        api_key="none",
        max_retries=0,
    )
    vectors = embeddings.get_text_embedding_batch(["hello world", "a cat sat"])
    print(
        json.dumps(
            {
                "chat": chat.chat(QUESTION).message.content,
                "stream": "".join(pieces),
                "pieces": len([piece for piece in pieces if piece]),
                "dimensions": [len(vector) for vector in vectors],
                "legacy": chat_at(os.environ["LEGACY_URL"]).chat(QUESTION).message.content,
            }
        )
    )


main()
