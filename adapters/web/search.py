"""Search engines for the web: Brave, Tavily, and SearXNG, which a closed network can run itself."""

from __future__ import annotations

import asyncio
import html
import re
import ssl
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx2
import msgspec
from msgspec import Struct

from adapters.web.tls import context_for
from gateway.ports import WebPage, WebSearchFailed
from gateway.settings import WebSearchSettings

__all__ = ["HttpSearch", "search_for"]

MAX_ANSWER_BYTES = 4 * 1024 * 1024
MAX_QUERY_CHARACTERS = 400
"""Brave refuses longer ones, and so does Tavily."""
MAX_TITLE_CHARACTERS = 300
MAX_TEXT_CHARACTERS = 4000
MAX_URL_CHARACTERS = 2048
CONCURRENCY = 16
_MARKUP = re.compile(r"</?[a-zA-Z][^>]{0,100}>")


class Request(Struct, frozen=True, kw_only=True):
    """What an engine is asked."""

    method: str
    path: str
    headers: dict[str, str] = {}
    params: dict[str, str | int] = {}
    json: dict[str, Any] | None = None


class Found(Struct, frozen=True):
    """A result, as an engine has it."""

    url: str | None = None
    title: str | None = None
    text: str | None = None


class Engine(Protocol):
    """How one engine is asked, and where its results are in the answer."""

    @property
    def name(self) -> str: ...

    @property
    def url(self) -> str | None:
        """Its own address, where it has one."""

    def request(
        self, query: str, limit: int, domains: Sequence[str], country: str | None, key: str | None
    ) -> Request: ...

    def results(self, answer: bytes) -> Iterable[Found]:
        """Raises ``msgspec.DecodeError``."""


class _BraveResult(Struct, frozen=True):
    url: str | None = None
    title: str | None = None
    description: str | None = None
    extra_snippets: list[str] | None = None


class _BravePages(Struct, frozen=True):
    results: list[_BraveResult] | None = None


class _BraveAnswer(Struct, frozen=True):
    web: _BravePages | None = None


class Brave:
    name = "Brave"
    url = "https://api.search.brave.com"

    def request(
        self, query: str, limit: int, domains: Sequence[str], country: str | None, key: str | None
    ) -> Request:
        params: dict[str, str | int] = {
            "q": _with_sites(query, domains),
            "count": limit,
            "text_decorations": "false",
        }
        if country is not None:
            params["country"] = country.upper()
        headers = {"x-subscription-token": key or "", "accept": "application/json"}
        return Request(method="GET", path="/res/v1/web/search", params=params, headers=headers)

    def results(self, answer: bytes) -> Iterable[Found]:
        pages = msgspec.json.decode(answer, type=_BraveAnswer).web
        for one in (pages.results if pages is not None else None) or ():
            texts = [one.description or "", *(one.extra_snippets or ())]
            yield Found(one.url, one.title, "\n".join(text for text in texts if text))


class _TavilyResult(Struct, frozen=True):
    url: str | None = None
    title: str | None = None
    content: str | None = None


class _TavilyAnswer(Struct, frozen=True):
    results: list[_TavilyResult] = []


class Tavily:
    name = "Tavily"
    url = "https://api.tavily.com"

    def request(
        self, query: str, limit: int, domains: Sequence[str], country: str | None, key: str | None
    ) -> Request:
        del country  # Tavily wants names of countries, and only prefers them
        body: dict[str, Any] = {"query": query, "max_results": limit}
        if domains:
            body["include_domains"] = [*domains]
        headers = {"authorization": f"Bearer {key or ''}"}
        return Request(method="POST", path="/search", json=body, headers=headers)

    def results(self, answer: bytes) -> Iterable[Found]:
        for one in msgspec.json.decode(answer, type=_TavilyAnswer).results:
            yield Found(one.url, one.title, one.content)


class Searxng:
    """Its JSON format must be switched on: ``search.formats: [html, json]`` of its settings."""

    name = "SearXNG"
    url = None

    def request(
        self, query: str, limit: int, domains: Sequence[str], country: str | None, key: str | None
    ) -> Request:
        del limit, country  # it has no parameter for either
        headers = {"authorization": f"Bearer {key}"} if key else {}
        params: dict[str, str | int] = {"q": _with_sites(query, domains), "format": "json"}
        return Request(method="GET", path="/search", params=params, headers=headers)

    def results(self, answer: bytes) -> Iterable[Found]:
        for one in msgspec.json.decode(answer, type=_TavilyAnswer).results:  # the same fields
            yield Found(one.url, one.title, one.content)


_ENGINES: dict[str, type[Engine]] = {"brave": Brave, "tavily": Tavily, "searxng": Searxng}


def search_for(settings: WebSearchSettings) -> HttpSearch | None:
    """The engine of the settings; ``None`` where there is none."""
    kind = _ENGINES.get(settings.kind)
    return HttpSearch(kind(), settings) if kind is not None else None


class HttpSearch:
    """Fulfils ``WebSearch`` with one engine."""

    def __init__(self, engine: Engine, settings: WebSearchSettings) -> None:
        self._engine = engine
        self._settings = settings
        self._client: httpx2.AsyncClient | None = None
        self._places = asyncio.Semaphore(CONCURRENCY)

    async def search(
        self,
        query: str,
        *,
        limit: int,
        allowed_domains: tuple[str, ...] = (),
        country: str | None = None,
    ) -> list[WebPage]:
        query = " ".join(query.split())[:MAX_QUERY_CHARACTERS]
        if not query:
            return []
        limit = max(1, min(limit, self._settings.max_results))
        domains = [one.lower().strip(".") for one in allowed_domains]
        request = self._engine.request(query, limit, domains, country, self._key())
        answer = await self._ask(request)
        try:
            found = list(self._engine.results(answer))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise self._failed("it answered with something that isn't its format") from None
        pages = [page for one in found if (page := _page_of(one, domains)) is not None]
        return pages[:limit]

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def _ask(self, request: Request) -> bytes:
        client = self._client_of()
        try:
            async with (
                asyncio.timeout(self._settings.timeout_seconds),
                self._places,
                client.stream(
                    request.method,
                    request.path,
                    params=request.params,
                    headers=request.headers,
                    json=request.json,
                ) as response,
            ):
                if response.status_code != 200:
                    raise self._failed(f"it answered with HTTP status {response.status_code}")
                data = bytearray()
                async for block in response.aiter_bytes():
                    data += block
                    if len(data) > MAX_ANSWER_BYTES:
                        raise self._failed("its answer is too large")
                return bytes(data)
        except (TimeoutError, httpx2.TimeoutException):
            seconds = self._settings.timeout_seconds
            raise self._failed(f"it didn't answer within {seconds:g} seconds") from None
        except (httpx2.HTTPError, httpx2.StreamError):
            raise self._failed("no connection came about, or it broke") from None

    def _client_of(self) -> httpx2.AsyncClient:
        if self._client is None:
            try:
                context = context_for(self._settings.ca_file)
            except (OSError, ssl.SSLError):
                raise self._failed("'web_search.ca_file' can't be used") from None
            self._client = httpx2.AsyncClient(
                base_url=(self._settings.url or self._engine.url or "").rstrip("/"),
                verify=context,
                timeout=self._settings.timeout_seconds,
                follow_redirects=False,
            )
        return self._client

    def _key(self) -> str | None:
        if self._settings.api_key_file is None:
            return self._settings.api_key
        try:
            return Path(self._settings.api_key_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise self._failed("'web_search.api_key_file' can't be read") from None

    def _failed(self, why: str) -> WebSearchFailed:
        return WebSearchFailed(f"The web search by {self._engine.name} failed: {why}.")


def _page_of(found: Found, domains: Sequence[str]) -> WebPage | None:
    """The page, bounded; ``None`` where it has no usable address or isn't of these domains."""
    url = found.url or ""
    try:
        split = urlsplit(url)
        host = (split.hostname or "").lower()
    except ValueError:
        return None
    if split.scheme not in ("http", "https") or not host or len(url) > MAX_URL_CHARACTERS:
        return None
    if domains and not any(host == one or host.endswith(f".{one}") for one in domains):
        return None
    return WebPage(
        url=url,
        title=_plain(found.title)[:MAX_TITLE_CHARACTERS] or host,
        text=_plain(found.text)[:MAX_TEXT_CHARACTERS],
    )


def _plain(text: str | None) -> str:
    """Without the marks around words that were searched."""
    return html.unescape(_MARKUP.sub("", text or "")).strip()


def _with_sites(query: str, domains: Sequence[str]) -> str:
    if not domains:
        return query
    return f"{query} ({' OR '.join(f'site:{one}' for one in domains[:20])})"
