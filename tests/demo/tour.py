"""A guided tour: what an unchanged OpenAI client does with this server, and what comes back.

    python tests/demo/tour.py --base-url http://127.0.0.1:8321/v1

Uses the `openai` SDK and httpx, nothing of the gateway. The code that each step shows is the code
that ran. Ends with 1 when a step failed; a step whose kind of model is missing is skipped.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import io
import json
import math
import operator
import os
import secrets
import sys
import textwrap
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import httpx
import openai
from openai import OpenAI

SENTENCES: Final = [
    "A cat sleeps on the sofa.",
    "The kitten naps on the couch.",
    "Interest rates rose again in March.",
]
CITY_SCHEMA: Final = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 30},
        "country": {"type": "string", "maxLength": 30},
    },
    "required": ["name", "country"],
    "additionalProperties": False,
}
WEATHER_TOOL: Final[Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 30},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}


ROOT: Final = Path(__file__).resolve().parents[2]
CONNECTOR: Final = "/v1alpha/admin/connectors/lighthouse/tools"
REPORT: Final = Path(__file__).with_name("report.pdf")
QUESTION: Final = "How many keepers live at the lighthouse, and who leads them?"


class UnexpectedAnswerError(Exception):
    """What came back is not what was promised."""


def expect(true: object, otherwise: str) -> None:
    """Fail the step unless the first argument holds."""
    if not true:
        raise UnexpectedAnswerError(otherwise)


# ------------------------------------------------------------------------------------------- output


class Paper:
    """Where the tour is written: indented, in colour on a terminal only."""

    def __init__(self) -> None:
        self._colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self._asked = time.monotonic()

    def since_asked(self) -> float:
        """Seconds since the code of this step was shown, right before it ran."""
        return time.monotonic() - self._asked

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text

    def title(self, number: int, text: str) -> None:
        print(f"\n{self._paint('1', f'{number}. {text}')}", flush=True)

    def code(self, text: str) -> None:
        print(self._paint("36", textwrap.indent(text, "   > ")), flush=True)
        self._asked = time.monotonic()

    def say(self, text: str) -> None:
        print(textwrap.indent(text, "   "), flush=True)

    def begin_line(self) -> None:
        print("   ", end="")

    def piece(self, text: str) -> None:
        print(text.replace("\n", "\n   "), end="", flush=True)

    def outcome(self, word: str, detail: str = "") -> None:
        code = {"ok": "32", "skipped": "33", "FAILED": "31;1"}[word]
        print(f"   {self._paint(code, word)} {detail}".rstrip(), flush=True)


# ----------------------------------------------------------------------------------- which models


@dataclass
class Models:
    """The models that the tour uses, by kind; None where the server has none of that kind."""

    chat: str | None = None
    embedding: str | None = None
    rerank: str | None = None

    @classmethod
    def of(cls, listed: list[openai.types.Model]) -> Models:
        """The first of each kind. A bi-encoder can rank too, so it serves where no reranker is."""
        found = cls()
        for model in listed:
            kind = kind_of(model)
            if kind in ("chat", "embedding", "rerank") and getattr(found, kind) is None:
                setattr(found, kind, model.id)
        found.rerank = found.rerank or found.embedding
        return found


def metadata_of(model: openai.types.Model) -> dict[str, Any]:
    """What a server like LlamaStack says about a model beyond OpenAI's fields."""
    return getattr(model, "custom_metadata", None) or {}


def kind_of(model: openai.types.Model) -> str:
    """The kind of a model: as the server says, or else as its name suggests."""
    told = metadata_of(model).get("model_type")
    if told:
        return {"llm": "chat"}.get(told, told)
    name = model.id.lower()
    if "rerank" in name:
        return "rerank"
    hints = ("embed", "minilm", "bge-", "e5-", "gte-")
    return "embedding" if any(hint in name for hint in hints) else "chat"


# -------------------------------------------------------------------------------------------- steps


@dataclass
class Visitor:
    """What a step works with. The last three are what earlier steps made."""

    client: OpenAI
    http: httpx.Client
    models: Models
    paper: Paper
    file: Any = None
    store: Any = None
    hits: Any = None


class Step(ABC):
    """One thing that is asked of the server. `ask` is shown as it stands, `tell` judges."""

    title: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def ask(self, visitor: Visitor) -> Any:
        """The call, which is also the text that is printed."""

    @abstractmethod
    def tell(self, answer: Any, paper: Paper) -> None:
        """Print what came back, and raise where it is not what was promised."""

    def snippet(self) -> str:
        """The body of `ask`."""
        source = textwrap.dedent(inspect.getsource(self.ask))
        body = textwrap.dedent(source.split(":\n", 1)[1])
        return body.removeprefix("return ").replace("visitor.", "").rstrip()


class ListModels(Step):
    title = "Which models are there?"

    def ask(self, visitor: Visitor) -> Any:
        return visitor.client.models.list().data

    def tell(self, answer: list[openai.types.Model], paper: Paper) -> None:
        expect(answer, "the list is empty")
        for model in answer:
            dimension = metadata_of(model).get("embedding_dimension")
            extra = f", {dimension} dimensions" if dimension else ""
            guess = "" if metadata_of(model).get("model_type") else " (guessed from its name)"
            paper.say(f"{model.id}: {kind_of(model)}{extra}{guess}")


class Chat(Step):
    title = "Chat"
    needs = ("chat",)

    def ask(self, visitor: Visitor) -> Any:
        return visitor.client.chat.completions.create(
            model=visitor.models.chat,
            messages=[{"role": "user", "content": "What is the capital of France?"}],
            temperature=0,
            max_tokens=32,
        )

    def tell(self, answer: Any, paper: Paper) -> None:
        choice = answer.choices[0]
        paper.say(choice.message.content)
        paper.say(f"[{choice.finish_reason}; {answer.usage.completion_tokens} tokens]")
        expect(choice.message.content.strip(), "the answer is empty")
        expect(answer.usage.completion_tokens > 0, "no tokens were counted")


class StreamedChat(Step):
    title = "Chat, printed as it arrives"
    needs = ("chat",)

    def ask(self, visitor: Visitor) -> Any:
        return visitor.client.chat.completions.create(
            model=visitor.models.chat,
            messages=[{"role": "user", "content": "Tell me about the sea in two sentences."}],
            temperature=0,
            max_tokens=80,
            stream=True,
            stream_options={"include_usage": True},
        )

    def tell(self, answer: Any, paper: Paper) -> None:
        first: float | None = None
        pieces, usage, finish = 0, None, None
        paper.begin_line()
        for chunk in answer:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                finish = choice.finish_reason or finish
                if choice.delta.content:
                    first = first or paper.since_asked()
                    pieces += 1
                    paper.piece(choice.delta.content)
        print()
        expect(first is not None and usage is not None, "no text, or no usage at the end")
        tokens = f"{usage.prompt_tokens} + {usage.completion_tokens} tokens"
        paper.say(f"[{finish}; {tokens}, {pieces} pieces, the first after {1000 * first:.0f} ms]")
        expect(pieces > 1, "it came in one piece")
        expect(finish in ("stop", "length"), f"finish_reason is {finish!r}")


class StructuredOutput(Step):
    title = "Structured output: JSON that fits a schema"
    needs = ("chat",)

    def ask(self, visitor: Visitor) -> Any:
        return visitor.client.chat.completions.create(
            model=visitor.models.chat,
            messages=[{"role": "user", "content": "Paris is in which country? Answer in JSON."}],
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "city", "strict": True, "schema": CITY_SCHEMA},
            },
            temperature=0,
            max_tokens=200,
        )

    def tell(self, answer: Any, paper: Paper) -> None:
        city = json.loads(answer.choices[0].message.content)
        paper.say(json.dumps(city, ensure_ascii=False))
        expect(set(city) == {"name", "country"}, "these are not the schema's fields")
        expect(all(isinstance(value, str) for value in city.values()), "a field is no string")


class ToolCall(Step):
    title = "A tool call with arguments that fit the tool"
    needs = ("chat",)

    def ask(self, visitor: Visitor) -> Any:
        return visitor.client.chat.completions.create(
            model=visitor.models.chat,
            messages=[{"role": "user", "content": "What is the weather in Lisbon, in celsius?"}],
            tools=[WEATHER_TOOL],
            tool_choice={"type": "function", "function": {"name": "get_weather"}},
            temperature=0,
            max_tokens=200,
        )

    def tell(self, answer: Any, paper: Paper) -> None:
        calls = answer.choices[0].message.tool_calls or []
        expect(len(calls) == 1, f"{len(calls)} tool calls came back")
        arguments = json.loads(calls[0].function.arguments)
        paper.say(f"{calls[0].function.name}({json.dumps(arguments, ensure_ascii=False)})")
        expect(calls[0].function.name == "get_weather", "another function was called")
        expect(set(arguments) == {"city", "unit"}, "the arguments don't fit the tool")
        expect(arguments["unit"] in ("celsius", "fahrenheit"), "the unit is not of the list")


class Embeddings(Step):
    title = "Embeddings: which two sentences mean the same?"
    needs = ("embedding",)

    def ask(self, visitor: Visitor) -> Any:
        return visitor.client.embeddings.create(model=visitor.models.embedding, input=SENTENCES)

    def tell(self, answer: Any, paper: Paper) -> None:
        vectors = [item.embedding for item in answer.data]
        expect(len(vectors) == len(SENTENCES), f"{len(vectors)} vectors came back")
        paper.say(f"{len(vectors)} vectors of {len(vectors[0])} numbers; cosine similarity:")
        likeness = {
            (one, two): cosine(vectors[one], vectors[two]) for one, two in ((0, 1), (0, 2), (1, 2))
        }
        for (one, two), value in likeness.items():
            paper.say(f"{value:6.3f}  {SENTENCES[one]}  |  {SENTENCES[two]}")
        expect(max(likeness, key=lambda pair: likeness[pair]) == (0, 1), "the cats are not closest")


class Rerank(Step):
    title = "Rerank documents by a question"
    needs = ("rerank",)

    def ask(self, visitor: Visitor) -> Any:
        return visitor.http.post(
            "rerank",
            json={
                "model": visitor.models.rerank,
                "query": "Where do cats sleep?",
                "documents": SENTENCES,
            },
        )

    def tell(self, answer: httpx.Response, paper: Paper) -> None:
        results = body_of(answer)["results"]
        for result in results:
            paper.say(f"{result['relevance_score']:6.3f}  {SENTENCES[result['index']]}")
        scores = [result["relevance_score"] for result in results]
        expect(len(results) == len(SENTENCES), f"{len(results)} results came back")
        expect(scores == sorted(scores, reverse=True), "the best is not first")
        expect(results[-1]["index"] == 2, "the interest rates are not last")


class Tokenise(Step):
    title = "How many tokens is this?"
    needs = ("chat",)

    def ask(self, visitor: Visitor) -> Any:
        return visitor.http.post(
            "tokenize",
            json={"model": visitor.models.chat, "prompt": "What is the capital of France?"},
        )

    def tell(self, answer: httpx.Response, paper: Paper) -> None:
        body = body_of(answer)
        paper.say(f"{body['count']} tokens: {body['tokens']}")
        expect(body["count"] == len(body["tokens"]) > 0, "the count is not that of the tokens")


class AnthropicMessages(Step):
    title = "The same model for a client of Anthropic's Messages API"
    needs = ("chat",)

    def ask(self, visitor: Visitor) -> Any:
        return visitor.http.post(
            "messages",
            headers={"anthropic-version": "2023-06-01"},
            json={
                "model": visitor.models.chat,
                "max_tokens": 32,
                "temperature": 0,
                "messages": [{"role": "user", "content": "What is the capital of France?"}],
            },
        )

    def tell(self, answer: httpx.Response, paper: Paper) -> None:
        body = body_of(answer)
        text = "".join(part.get("text", "") for part in body["content"])
        paper.say(text)
        paper.say(f"[{body['stop_reason']}; {body['usage']['output_tokens']} tokens]")
        expect(body["type"] == "message" and text.strip(), "this is no message")


class UploadPdf(Step):
    title = "Files: upload a PDF"

    def ask(self, visitor: Visitor) -> Any:
        visitor.file = visitor.client.files.create(file=REPORT, purpose="user_data")
        return visitor.file

    def tell(self, answer: Any, paper: Paper) -> None:
        paper.say(f"{answer.id}: {answer.filename}, {answer.bytes} bytes")
        expect(answer.bytes == REPORT.stat().st_size, "it has another size")


class FillVectorStore(Step):
    title = "Vector stores: convert it, cut it into chunks, embed them"
    needs = ("embedding",)

    def ask(self, visitor: Visitor) -> Any:
        visitor.store = visitor.client.vector_stores.create(
            name="reports", extra_body={"embedding_model": visitor.models.embedding}
        )
        return visitor.client.vector_stores.files.create_and_poll(
            visitor.file.id,
            vector_store_id=visitor.store.id,
            attributes={"year": 2026},
            chunking_strategy={
                "type": "static",
                "static": {"max_chunk_size_tokens": 120, "chunk_overlap_tokens": 20},
            },
        )

    def tell(self, answer: Any, paper: Paper) -> None:
        paper.say(f"{answer.status} in {answer.vector_store_id}, attributes {answer.attributes}")
        expect(answer.status == "completed", f"last_error: {answer.last_error}")


class SearchVectorStore(Step):
    title = "Search it by meaning"
    needs = ("embedding",)

    def ask(self, visitor: Visitor) -> Any:
        visitor.hits = visitor.client.vector_stores.search(
            visitor.store.id,
            query=QUESTION,
            max_num_results=3,
            filters={"type": "gte", "key": "year", "value": 2025},
        ).data
        return visitor.hits

    def tell(self, answer: Any, paper: Paper) -> None:
        expect(answer, "nothing was found")
        for hit in answer:
            text = textwrap.shorten(hit.content[0].text, 90)
            paper.say(f"{hit.score:6.3f}  {hit.filename}: {text}")
        scores = [hit.score for hit in answer]
        expect(scores == sorted(scores, reverse=True), "the best is not first")
        expect("keepers" in answer[0].content[0].text, "the best hit is about something else")


class HybridSearch(Step):
    title = "Search it by words and meaning (LlamaStack's search_mode)"
    needs = ("embedding",)

    def ask(self, visitor: Visitor) -> Any:
        return visitor.client.vector_stores.search(
            visitor.store.id,
            query="fog signal relay",
            max_num_results=1,
            extra_body={"search_mode": "hybrid"},
        ).data

    def tell(self, answer: Any, paper: Paper) -> None:
        expect(answer, "nothing was found")
        paper.say(f"{answer[0].score:6.3f}  {textwrap.shorten(answer[0].content[0].text, 90)}")
        expect("fog signal" in answer[0].content[0].text, "the best hit lacks the word")


class AnswerFromHits(Step):
    title = "Answer from what was found"
    needs = ("embedding", "chat")

    def ask(self, visitor: Visitor) -> Any:
        found = "\n\n".join(hit.content[0].text for hit in visitor.hits)
        return visitor.client.chat.completions.create(
            model=visitor.models.chat,
            messages=[
                {"role": "system", "content": f"Answer from this text only:\n\n{found}"},
                {"role": "user", "content": QUESTION},
            ],
            temperature=0,
            max_tokens=48,
        )

    def tell(self, answer: Any, paper: Paper) -> None:
        paper.say(answer.choices[0].message.content)
        expect(answer.choices[0].message.content.strip(), "the answer is empty")


class DeleteAll(Step):
    title = "Delete store and file"
    needs = ("embedding",)

    def ask(self, visitor: Visitor) -> Any:
        store = visitor.client.vector_stores.delete(visitor.store.id)
        return store, visitor.client.files.delete(visitor.file.id)

    def tell(self, answer: Any, paper: Paper) -> None:
        for one in answer:
            paper.say(f"{one.id}: {one.object}, deleted={one.deleted}")
        expect(all(one.deleted for one in answer), "something is still there")


class CallFunction(Step):
    title = "Responses: a function is called, and its result goes back"
    needs = ("chat",)

    def ask(self, visitor: Visitor) -> Any:
        weather = {"type": "function", **WEATHER_TOOL["function"]}
        first = visitor.client.responses.create(
            model=visitor.models.chat,
            input="What is the weather in Paris?",
            tools=[weather],
            tool_choice={"type": "function", "name": "get_weather"},
            temperature=0,
            max_output_tokens=60,
        )
        call = first.output[0]
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny, 21 °C"}
        second = visitor.client.responses.create(
            model=visitor.models.chat,
            previous_response_id=first.id,
            input=[result],
            max_output_tokens=40,
        )
        return call, second

    def tell(self, answer: Any, paper: Paper) -> None:
        call, second = answer
        expect(call.type == "function_call", f"a function_call was due, not {call.type}")
        paper.say(f"{call.name}({call.arguments})")
        paper.say(second.output_text)
        expect(second.output_text, "no answer came of the result")


class RunAgent(Step):
    title = "An agent: file search and an MCP server, as in docs/agent.md"
    needs = ("chat", "embedding")

    def ask(self, visitor: Visitor) -> Any:
        if not has_connector(visitor):
            return None
        address = str(visitor.client.base_url).rstrip("/")
        program = agent_program().replace("http://127.0.0.1:8321/v1", address)
        program = program.replace("smollm2-135m", visitor.models.chat or "")
        names: dict[str, Any] = {}
        with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.chdir(ROOT):
            exec(program, names)
        visitor.client.vector_stores.delete(names["store"].id)
        return names["found"], names["read"], printed.getvalue()

    def snippet(self) -> str:
        return agent_program()

    def tell(self, answer: Any, paper: Paper) -> None:
        if answer is None:
            paper.say("The server has no connector 'lighthouse'; make demo configures one.")
            return
        found, read, printed = answer
        paper.say(printed.strip())
        expect(found.output[-1].content[0].annotations, "no citation came")
        calls = [item for item in read.output if item.type == "mcp_call"]
        expect(calls and calls[0].output, "no tool of the MCP server was run")


def has_connector(visitor: Visitor) -> bool:
    """Whether the server knows the tool server that the agent wants."""
    root = str(visitor.client.base_url).partition("/v1")[0]
    return visitor.http.get(f"{root}{CONNECTOR}").is_success


def agent_program() -> str:
    """The program of docs/agent.md."""
    page = (ROOT / "docs" / "agent.md").read_text(encoding="utf-8")
    return page.partition("```python\n")[2].partition("```")[0].strip()


class UnknownModel(Step):
    title = "An error: a model that does not exist"

    def ask(self, visitor: Visitor) -> Any:
        return visitor.client.chat.completions.create(
            model="no-such-model",
            messages=[{"role": "user", "content": "What is the capital of France?"}],
        )

    def tell(self, answer: Any, paper: Paper) -> None:
        show_error(answer, openai.NotFoundError, paper)


class WrongKind(Step):
    title = "An error: chat with an embedding model"
    needs = ("embedding",)

    def ask(self, visitor: Visitor) -> Any:
        return visitor.client.chat.completions.create(
            model=visitor.models.embedding,
            messages=[{"role": "user", "content": "What is the capital of France?"}],
        )

    def tell(self, answer: Any, paper: Paper) -> None:
        show_error(answer, openai.BadRequestError, paper)


TRACE_ID: Final = secrets.token_hex(16)
SPAN_ID: Final = secrets.token_hex(8)


class Tracing(Step):
    title = "Tracing: the call joins the trace of its caller"
    needs = ("chat",)

    def ask(self, visitor: Visitor) -> Any:
        return visitor.client.chat.completions.with_raw_response.create(
            model=visitor.models.chat,
            messages=[{"role": "user", "content": "Say hello."}],
            max_tokens=8,
            extra_headers={"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01"},
        )

    def tell(self, answer: Any, paper: Paper) -> None:
        request_id = answer.headers.get("x-request-id")
        paper.say(f"trace {TRACE_ID}")
        paper.say(f"x-request-id: {request_id}")
        expect(request_id, "no x-request-id came back")
        paper.say("With OTEL_EXPORTER_OTLP_ENDPOINT set, the gateway's and vLLM's spans lie in it.")


STEPS: Final[tuple[type[Step], ...]] = (
    *(ListModels, Chat, StreamedChat, StructuredOutput, ToolCall),
    *(Embeddings, Rerank, Tokenise, AnthropicMessages),
    *(UploadPdf, FillVectorStore, SearchVectorStore, HybridSearch, AnswerFromHits, DeleteAll),
    *(CallFunction, RunAgent),
    *(UnknownModel, WrongKind, Tracing),
)


def cosine(one: list[float], two: list[float]) -> float:
    """The cosine of the angle between two vectors."""
    return sum(map(operator.mul, one, two)) / (math.hypot(*one) * math.hypot(*two))


def body_of(answer: httpx.Response) -> Any:
    """The JSON body of a good answer."""
    expect(answer.is_success, f"HTTP {answer.status_code}: {answer.text[:300]}")
    return answer.json()


def show_error(answer: Any, kind: type[openai.APIStatusError], paper: Paper) -> None:
    """Print an error as the SDK raised it, and see that it is the one an OpenAI client expects."""
    expect(isinstance(answer, openai.APIStatusError), "no error came back")
    paper.say(f"openai.{type(answer).__name__}: HTTP {answer.status_code}, code {answer.code!r}")
    paper.say(str(answer.body.get("message") if isinstance(answer.body, dict) else answer.body))
    expect(isinstance(answer, kind), f"an openai.{kind.__name__} was due")


# --------------------------------------------------------------------------------------- the walk


def walk(visitor: Visitor) -> int:
    """Take all steps; how many failed."""
    failed = 0
    for number, kind in enumerate(STEPS, start=1):
        step = kind()
        visitor.paper.title(number, step.title)
        if missing := [need for need in step.needs if getattr(visitor.models, need) is None]:
            visitor.paper.outcome("skipped", f"(the server has no {missing[0]} model)")
            continue
        visitor.paper.code(step.snippet())
        try:
            take(step, visitor)
        except Exception as error:  # noqa: BLE001  a broken step must not end the tour
            failed += 1
            said = (
                str(error)
                if isinstance(error, UnexpectedAnswerError)
                else f"{type(error).__name__}: {error}"
            )
            visitor.paper.outcome("FAILED", f"after {visitor.paper.since_asked():.2f} s: {said}")
        else:
            visitor.paper.outcome("ok", f"({visitor.paper.since_asked():.2f} s)")
    return failed


def take(step: Step, visitor: Visitor) -> None:
    """One step. An error answer goes to `tell` in the two steps that ask for one."""
    try:
        answer = step.ask(visitor)
    except openai.APIStatusError as error:
        if not isinstance(step, UnknownModel | WrongKind):
            raise
        answer = error
    step.tell(answer, visitor.paper)


def main() -> int:
    parser = argparse.ArgumentParser(description="Show what the server does, step by step.")
    parser.add_argument(
        "--base-url", default=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8321/v1")
    )
    parser.add_argument("--api-key", default=os.environ.get("OPENAI_API_KEY", "none"))
    arguments = parser.parse_args()
    base_url = arguments.base_url.rstrip("/")

    paper = Paper()
    paper.code(f'client = OpenAI(base_url="{base_url}", api_key=...)')
    headers = {"authorization": f"Bearer {arguments.api_key}"}
    client = OpenAI(base_url=base_url, api_key=arguments.api_key, timeout=60, max_retries=0)
    with client, httpx.Client(base_url=base_url, headers=headers, timeout=60) as http:
        try:
            models = Models.of(client.models.list().data)
        except openai.OpenAIError as error:
            print(f"No list of models from {base_url}: {error}", file=sys.stderr)
            return 1
        failed = walk(Visitor(client, http, models, paper))
    print(f"\n{failed} of {len(STEPS)} steps failed." if failed else "\nAll went well.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
