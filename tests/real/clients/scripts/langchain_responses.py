"""LangChain and LangGraph on the Responses API; what is heard is printed by its neighbour."""

import os
from typing import Any, Literal

from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from openai import OpenAI

QUESTION = os.environ["QUESTION"]
DOCUMENT = b"# Keeper's handbook\n\nA volunteer gets eleven days of leave a year.\n"


@tool
def get_weather(city: Literal["Paris", "Rome"]) -> str:
    """The weather in a city."""
    return f"It is sunny in {city}."


def chat_at(url: str, **options: Any) -> ChatOpenAI:
    """The chat class on the Responses API of this address."""
    return ChatOpenAI(
        base_url=url,
        model=os.environ["CHAT_MODEL"],
        api_key="none",
        temperature=0,
        max_retries=0,
        use_responses_api=True,
        # A small model doesn't know when to stop.
        **{"max_tokens": 400, "stop": [". "], **options},
    )


def graph(chat: ChatOpenAI) -> list[str]:
    """A graph of a model and its tools; the model has to call one first, and is then free."""
    first = chat.bind_tools([get_weather], tool_choice="get_weather", strict=True)
    later = chat.bind_tools([get_weather], tool_choice="none")

    def model(state: MessagesState) -> dict[str, Any]:
        asked = later if any(one.type == "tool" for one in state["messages"]) else first
        return {"messages": [asked.invoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("model", model)
    builder.add_node("tools", ToolNode([get_weather]))
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", tools_condition)
    builder.add_edge("tools", "model")
    done = builder.compile().invoke({"messages": [("user", "How is the weather in Paris?")]})
    return [one.type for one in done["messages"]]


def file_search() -> dict[str, Any]:
    """A hosted tool, by LangChain's way of binding it; there is room for a query of any length."""
    client = OpenAI(base_url=os.environ["BASE_URL"], api_key="none")
    file = client.files.create(file=("handbook.md", DOCUMENT), purpose="assistants")
    store = client.vector_stores.create(
        name="handbook", extra_body={"embedding_model": os.environ["EMBEDDING_MODEL"]}
    )
    client.vector_stores.files.create_and_poll(vector_store_id=store.id, file_id=file.id)
    hosted = {"type": "file_search", "vector_store_ids": [store.id], "max_num_results": 2}
    sampling = {"repetition_penalty": 1.1}
    chat = chat_at(os.environ["BASE_URL"], max_tokens=800, stop=None, extra_body=sampling)
    bound = chat.bind_tools([hosted], tool_choice={"type": "file_search"})
    answer = bound.invoke("How many days of leave does a volunteer get?")
    client.vector_stores.delete(store.id)
    client.files.delete(file.id)
    blocks = answer.content_blocks
    return {
        "kinds": sorted({one["type"] for one in blocks}),
        "cited": [
            note.get("title") or note.get("extras", {}).get("filename") or note.get("filename")
            for one in blocks
            for note in one.get("annotations") or ()
        ],
    }


def heard() -> dict[str, Any]:
    """Invoke, stream, go on, call tools, structure, search."""
    chat = chat_at(os.environ["BASE_URL"])
    answer = chat.invoke(QUESTION)
    pieces = [chunk.text for chunk in chat.stream(QUESTION)]
    more = chat.invoke("And of Italy?", previous_response_id=answer.response_metadata["id"])
    agent = create_agent(chat, tools=[get_weather])
    done = agent.invoke({"messages": [("user", QUESTION)]})
    return {
        "chat": answer.text,
        "usage": answer.usage_metadata,
        "id": answer.response_metadata["id"],
        "stream": "".join(pieces),
        "pieces": len([piece for piece in pieces if piece]),
        "legacy": chat_at(os.environ["LEGACY_URL"]).invoke(QUESTION).text,
        "continued": bool(more.text),
        "agent": done["messages"][-1].text,
        "graph": graph(chat),
        "search": file_search(),
    }
