"""LlamaIndex's OpenAI classes for servers other than OpenAI's: prints one line of JSON.

`OpenAI` itself wants a model name that it knows; `OpenAILike` and `OpenAILikeEmbedding` take any.
"""

import json
import os
from typing import Any

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai import OpenAIResponses
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


def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"It is sunny in {city}."


def responses() -> dict[str, Any]:
    """The class for the Responses API, which takes any model whose context is told."""
    model = OpenAIResponses(
        model=os.environ["CHAT_MODEL"],
        api_base=os.environ["BASE_URL"],
        api_key="none",
        context_window=2048,
        max_output_tokens=60,
        temperature=0,
        max_retries=0,
    )
    tool = FunctionTool.from_defaults(get_weather)
    called = model.chat_with_tools([tool], "How is the weather in Paris?", tool_required=True)
    calls = model.get_tool_calls_from_response(called, error_on_no_tool_call=False)
    return {
        "chat": model.chat(QUESTION).message.content,
        "stream": "".join(part.delta or "" for part in model.stream_chat(QUESTION)),
        "called": [call.tool_name for call in calls],
    }


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
                "responses": responses(),
                "legacy": chat_at(os.environ["LEGACY_URL"]).chat(QUESTION).message.content,
            }
        )
    )


main()
