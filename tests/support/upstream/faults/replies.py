"""Whole answers that are wrong: vLLM's own five shapes of errors, and pages of others."""

from __future__ import annotations

from tests.support.samples import sample
from tests.support.upstream import answers
from tests.support.upstream.answers import DONE, Events, Whole
from tests.support.upstream.exchange import Behaviour, Exchange


def answers_with(
    status: int, body: bytes = b"", content_type: str | None = answers.JSON, **headers: str
) -> Behaviour:
    """This status and body; `retry_after="2"` becomes the header `retry-after: 2`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return _sends_answer(Whole(status, body, content_type, named))


def truncated_json() -> Behaviour:
    """Half of the JSON, with a content-length that is right for the half."""

    async def behaviour(exchange: Exchange) -> None:
        assert isinstance(exchange.answer, Whole), "truncated_json() needs an answer in JSON"
        body = exchange.answer.body
        await exchange.send(Whole(exchange.answer.status, body[: len(body) // 2]))

    return behaviour


def redirects_to_login(location: str = "https://login.example/oauth/authorize") -> Behaviour:
    """302 to a login page: what an OAuth proxy in front of vLLM says to a call without a token."""
    page = f'<a href="{location}">Found</a>.\n\n'.encode()
    return answers_with(302, page, "text/html; charset=utf-8", location=location)


def html(status: int = 200, body: bytes = b"<html><body>Log in</body></html>") -> Behaviour:
    """A web page in place of JSON."""
    return answers_with(status, body, "text/html")


def vllm_error(
    status: int = 500,
    message: str = "EngineCore encountered an issue. See stack trace (above) for the root cause.",
    kind: str | None = None,
    param: str | None = None,
) -> Behaviour:
    """Shape 1: vLLM's envelope, with the status as a number in `code`."""
    return _sends_answer(answers.vllm_error(status, message, kind, param))


def validation_error() -> Behaviour:
    """Shape 2: a Pydantic report, as recorded for `temperature: "hot"`."""
    return recorded("err-temperature-string")


def anthropic_error(status: int = 500, message: str = "EngineCore died.") -> Behaviour:
    """Shape 1 as `/v1/messages` words it."""
    return _sends_answer(answers.anthropic_error(answers.vllm_error(status, message)))


def unauthorized() -> Behaviour:
    """Shape 3: 401 with a string for an error."""
    return _sends_answer(answers.unauthorized())


def detail(status: int = 404) -> Behaviour:
    """Shape 4: the framework's `{"detail": ...}`."""
    return _sends_answer(answers.detail(status))


def error_event_first(
    code: int = 503,
    message: str = (
        "The engine is currently busy and cannot accept new requests."
        " Please try again later or on a different instance."
    ),
    kind: str = "Service Unavailable",
) -> Behaviour:
    """Shape 5: status 200, an error as the FIRST event, then `[DONE]`."""
    return _sends_answer(Events([answers.error_event(message, kind, code), DONE]))


def error_event_after(events: int = 2) -> Behaviour:
    """The engine dies mid-stream: an error event, `[DONE]`, and a clean end."""

    async def behaviour(exchange: Exchange) -> None:
        assert isinstance(exchange.answer, Events), "error_event_after() needs stream: true"
        begun = exchange.answer.events[:events]
        await exchange.send(Events([*begun, answers.error_event(), DONE]))

    return behaviour


def overloaded() -> Behaviour:
    """Overload as vLLM has it: 503 for JSON, 200 and an error as first event for a stream."""

    async def behaviour(exchange: Exchange) -> None:
        refuse = error_event_first() if exchange.wants_stream else recorded("overload-rejected")
        await refuse(exchange)

    return behaviour


def unavailable(retry_after: str | None = None) -> Behaviour:
    """503 in vLLM's envelope, stream or not, as from a proxy or a server that starts."""
    body = sample("overload-rejected").body
    return answers_with(503, body, **({"retry_after": retry_after} if retry_after else {}))


def rate_limited(retry_after: str = "2") -> Behaviour:
    """429 with `retry-after`."""
    error = answers.vllm_error(429, "Too many requests.", "Too Many Requests")
    return answers_with(429, error.body, retry_after=retry_after)


def recorded(name: str) -> Behaviour:
    """The answer of a recorded sample, whatever the request says."""
    found = sample(name)
    if "text/event-stream" in found.headers.get("content-type", ""):
        return _sends_answer(Events(found.events))
    return _sends_answer(Whole(found.status, found.body, found.headers.get("content-type")))


def _sends_answer(answer: answers.Answer) -> Behaviour:
    async def behaviour(exchange: Exchange) -> None:
        await exchange.send(answer)

    return behaviour
