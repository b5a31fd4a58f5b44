"""What every search engine for the web must do, by its adapter."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from adapters.web import HttpSearch, search_for
from gateway.ports import WebSearchFailed
from gateway.settings import WebSearchSettings
from tests.support.gateway import free_port
from tests.support.search_engines import KEY, SearchEngine

pytestmark = pytest.mark.anyio

ENGINES = ("brave", "tavily", "searxng")


@pytest.fixture(params=ENGINES)
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[SearchEngine]:
    async with SearchEngine(request.param) as started:
        yield started


def adapter(engine: SearchEngine, **more: Any) -> HttpSearch:
    settings = {
        "kind": engine.kind,
        "url": engine.url,
        "api_key": KEY,
        "timeout_seconds": 20,
        **more,
    }
    made = search_for(WebSearchSettings(**settings))
    assert made is not None
    return made


@pytest.fixture
async def search(engine: SearchEngine) -> AsyncIterator[HttpSearch]:
    made = adapter(engine)
    yield made
    await made.aclose()


async def test_pages_are_found(search: HttpSearch):
    """With address, title and text, free of markup; what no browser opens is left out."""
    pages = await search.search("lamp", limit=5)
    assert [page.url for page in pages] == [
        "https://lamps.example/a",
        "https://www.lighthouse.example/b",
        "https://lamps.example/c",
    ]
    assert pages[0].title == "Lamps & lights"
    assert pages[0].text.startswith("A lamp gives light.")


async def test_no_more_than_asked_for(search: HttpSearch):
    """Nor than the configuration allows."""
    assert len(await search.search("lamp", limit=2)) == 2
    assert len(await search.search("lamp", limit=1000)) == 3


async def test_domains_are_kept_to(search: HttpSearch):
    """Theirs and their subdomains' pages, whatever the engine finds."""
    found = await search.search("lamp", limit=5, allowed_domains=("lighthouse.example",))
    assert [page.url for page in found] == ["https://www.lighthouse.example/b"]


async def test_a_country_may_be_named(search: HttpSearch):
    """It is a wish; engines that don't know it pass it by."""
    assert await search.search("lamp", limit=1, country="de")


async def test_an_empty_query_finds_nothing(engine: SearchEngine, search: HttpSearch):
    """And isn't sent."""
    assert await search.search("  ", limit=5) == []
    assert engine.requests == []


async def test_a_long_query_is_cut(engine: SearchEngine, search: HttpSearch):
    """Engines refuse more than some hundred characters."""
    assert await search.search("lamp " * 1000, limit=5)
    request = engine.requests[0]
    assert len(request["body"]) < 1000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"web": 1, "results": 1}',
        b"[" * 100_000,
        b"\xff",
        b'"' + b"x" * 5_000_000,
    ],
)
async def test_an_odd_answer_is_a_failure(body: bytes, engine: SearchEngine, search: HttpSearch):
    """Told without what was in it."""
    engine.behave(200, body)
    with pytest.raises(WebSearchFailed) as raised:
        await search.search("lamp", limit=5)
    assert raised.value.message.startswith("The web search by ")
    assert len(raised.value.message) < 200


@pytest.mark.parametrize(
    "body", [b"{}", b'{"web": null}', b'{"web": {"results": [{}]}, "results": [{}]}']
)
async def test_an_answer_without_pages_has_none(
    body: bytes, engine: SearchEngine, search: HttpSearch
):
    """Fields that are missing are no failure."""
    engine.behave(200, body)
    assert await search.search("lamp", limit=5) == []


@pytest.mark.parametrize("status", [301, 401, 403, 422, 429, 500])
async def test_a_refusal_is_a_failure_with_its_status(
    status: int, engine: SearchEngine, search: HttpSearch
):
    """Redirects too: nobody follows them with the key."""
    engine.behave(status)
    with pytest.raises(WebSearchFailed, match=f"HTTP status {status}") as raised:
        await search.search("lamp", limit=5)
    assert KEY not in raised.value.message


async def test_one_that_is_down_is_a_failure(engine: SearchEngine):
    """Soon, and without its address."""
    port = free_port()
    search = adapter(engine, url=f"http://127.0.0.1:{port}")
    with pytest.raises(WebSearchFailed) as raised:
        await search.search("lamp", limit=5)
    assert str(port) not in raised.value.message


async def test_long_texts_are_cut(engine: SearchEngine, search: HttpSearch):
    """So that a page can't fill a model's context."""
    long = {"url": "https://a.example/", "title": "t" * 9000, "content": "x" * 90_000}
    brave = {**long, "description": long["content"]}
    body = {"results": [long], "web": {"results": [brave]}}
    engine.behave(200, json.dumps(body).encode())
    [page] = await search.search("lamp", limit=5)
    assert len(page.title) == 300
    assert len(page.text) == 4000


async def test_the_key_may_change_in_its_file(engine: SearchEngine, tmp_path: Path):
    """A mounted secret is read for every search."""
    file = tmp_path / "key"
    file.write_text("outdated\n")
    search = adapter(engine, api_key=None, api_key_file=str(file))
    if engine.kind != "searxng":
        with pytest.raises(WebSearchFailed):
            await search.search("lamp", limit=1)
    file.write_text(f"{KEY}\n")
    assert await search.search("lamp", limit=1)
    await search.aclose()


async def test_no_engine_is_the_default():
    """Then there is no adapter."""
    assert search_for(WebSearchSettings()) is None
