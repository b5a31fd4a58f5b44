"""OpenAI's Agents SDK on the Responses API: prints one line of JSON.

A small model doesn't choose tools by itself: the first turn has to, and the SDK frees the next.
It doesn't know when to stop either, and what it says differs between processors.
"""

import asyncio
import json
import os
from typing import Literal

from agents import (
    Agent,
    FileSearchTool,
    ModelBehaviorError,
    ModelSettings,
    OpenAIConversationsSession,
    OpenAIResponsesModel,
    Runner,
    RunResult,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI

QUESTION = os.environ["QUESTION"]
DOCUMENT = b"# Keeper's handbook\n\nA volunteer gets eleven days of leave a year.\n"

set_tracing_disabled(disabled=True)  # it would send traces to OpenAI


@function_tool
def get_weather(city: Literal["Paris", "Rome"]) -> str:
    """The weather in a city."""
    return f"It is sunny in {city}."


def agent_of(client: AsyncOpenAI, **settings: object) -> Agent:
    """An agent with one function, which it is made to call first where `forced`."""
    tools = settings.pop("tools", [])
    sampling = settings.pop("sampling", {"temperature": 0, "stop": [". "]})
    model = OpenAIResponsesModel(model=os.environ["CHAT_MODEL"], openai_client=client)
    return Agent(
        name="Assistant",
        model=model,
        tools=tools,
        model_settings=ModelSettings(max_tokens=600, extra_body=sampling, **settings),
    )


async def made_to_call(client: AsyncOpenAI, question: str, **settings: object) -> RunResult:
    """An agent's run with a tool that it has to call first.

    The SDK raises when the answer after the call has no end; with another seed it has one.
    """
    for seed in range(8):
        sampling = {
            "temperature": 0.15 * seed,
            "seed": seed,
            "repetition_penalty": 1.1,
            "stop": ["\n\n"],
        }
        try:
            return await Runner.run(agent_of(client, sampling=sampling, **settings), question)
        except ModelBehaviorError as error:
            if "max_output_tokens" not in str(error):
                raise
            endless = error
    raise endless


async def file_search(client: AsyncOpenAI) -> dict[str, object]:
    """An agent that has to look into a vector store."""
    file = await client.files.create(file=("handbook.md", DOCUMENT), purpose="assistants")
    store = await client.vector_stores.create(
        name="handbook", extra_body={"embedding_model": os.environ["EMBEDDING_MODEL"]}
    )
    await client.vector_stores.files.create_and_poll(vector_store_id=store.id, file_id=file.id)
    tool = FileSearchTool(
        vector_store_ids=[store.id], max_num_results=2, include_search_results=True
    )
    question = "How many days of leave does a volunteer get?"
    done = await made_to_call(client, question, tools=[tool], tool_choice="file_search")
    items = [item.raw_item for item in done.new_items]
    search = next(item for item in items if item.type == "file_search_call")
    message = next(item for item in items if item.type == "message")
    await client.vector_stores.delete(store.id)
    await client.files.delete(file.id)
    return {
        "status": search.status,
        "found": search.results[0].text,
        "cited": [one.filename for one in message.content[0].annotations],
        "answered": bool(done.final_output),
    }


async def main() -> None:
    """Run, call a function, stream, remember, search."""
    client = AsyncOpenAI(base_url=os.environ["BASE_URL"], api_key="none", max_retries=0)
    legacy = AsyncOpenAI(base_url=os.environ["LEGACY_URL"], api_key="none", max_retries=0)
    plain = await Runner.run(agent_of(client), QUESTION)
    called = await made_to_call(
        client, "How is the weather in Paris?", tools=[get_weather], tool_choice="get_weather"
    )
    streamed = Runner.run_streamed(agent_of(client), QUESTION)
    raw = [event.data async for event in streamed.stream_events() if hasattr(event, "data")]
    pieces = [event.delta for event in raw if event.type == "response.output_text.delta"]
    session = OpenAIConversationsSession(openai_client=client)
    await Runner.run(agent_of(client), QUESTION, session=session)
    await Runner.run(agent_of(client), "And of Italy?", session=session)
    remembered = await session.get_items()
    await session.clear_session()
    continued = await Runner.run(
        agent_of(client), "And of Italy?", previous_response_id=plain.last_response_id
    )
    print(
        json.dumps(
            {
                "chat": plain.final_output,
                "usage": plain.raw_responses[0].usage.output_tokens,
                "stream": streamed.final_output,
                "pieces": len(pieces),
                "legacy": (await Runner.run(agent_of(legacy), QUESTION)).final_output,
                "items": [item.type for item in called.new_items],
                "called": [
                    item.output for item in called.new_items if item.type == "tool_call_output_item"
                ],
                "remembered": [item.get("role") for item in remembered],
                "continued": continued.raw_responses[0].usage.input_tokens
                > plain.raw_responses[0].usage.input_tokens,
                "search": await file_search(client),
            }
        )
    )


asyncio.run(main())
