"""Stand-ins for search engines: they answer as Brave, Tavily and SearXNG do, from a few pages."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs

from gateway.http.asgi import Receive, Scope, Send
from tests.support.tool_servers import Serving, answer

KEY = "sesame-7f3a"
PAGES = [
    ("https://lamps.example/a", "Lamps & lights", "A <strong>lamp</strong> gives light."),
    ("https://www.lighthouse.example/b", "Lighthouses", "A lighthouse has a lamp."),
    ("https://lamps.example/c", "More lamps", "Nothing is known of this lamp."),
    ("ftp://lamps.example/d", "Not for a browser", "A lamp."),
]


class SearchEngine(Serving):
    """`kind` is `brave`, `tavily` or `searxng`. `behave` makes it answer with this status or body
    instead."""

    def __init__(self, kind: str) -> None:
        super().__init__(self._answer, path="")
        self.kind = kind
        self.behaviour: tuple[int, bytes] | None = None

    def behave(self, status: int, body: bytes = b"{}") -> None:
        self.behaviour = (status, body)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for _ in range(2):
                await send({"type": f"{(await receive())['type']}.complete"})
            return
        body = b""
        more = True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if self.behaviour is not None:
            await answer(send, *self.behaviour)
            return
        query = {
            name: values[0] for name, values in parse_qs(scope["query_string"].decode()).items()
        }
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        status, found = getattr(self, f"_{self.kind}")(scope, headers, query, body)
        await answer(send, status, json.dumps(found).encode())

    def _brave(
        self, scope: Scope, headers: dict[str, str], query: dict[str, str], _: bytes
    ) -> tuple[int, Any]:
        if (scope["method"], scope["path"]) != ("GET", "/res/v1/web/search"):
            return 404, {}
        if headers.get("x-subscription-token") != KEY:
            error = {"code": "SUBSCRIPTION_TOKEN_INVALID", "status": 422}
            return 422, {"type": "ErrorResponse", "error": error}
        if not 1 <= int(query.get("count", "20")) <= 20 or len(query["q"]) > 400 + 21 * 300:
            return 422, {"type": "ErrorResponse", "error": {"code": "VALIDATION"}}
        results = [
            {
                "type": "search_result",
                "title": title,
                "url": url,
                "description": text,
                "extra_snippets": ["And more."],
                "meta_url": {"hostname": url.split("/")[2]},
            }
            for url, title, text in PAGES
        ]
        kept = results[: int(query.get("count", "20"))]
        return 200, {
            "type": "search",
            "query": {"original": query["q"]},
            "web": {"type": "search", "results": kept},
        }

    def _tavily(
        self, scope: Scope, headers: dict[str, str], _: dict[str, str], body: bytes
    ) -> tuple[int, Any]:
        if (scope["method"], scope["path"]) != ("POST", "/search"):
            return 404, {}
        if headers.get("authorization") != f"Bearer {KEY}":
            return 401, {"detail": {"error": "Unauthorized: missing or invalid API key."}}
        asked = json.loads(body)
        domains = asked.get("include_domains", [])
        results = [
            {"title": title, "url": url, "content": text, "score": 0.9, "raw_content": None}
            for url, title, text in PAGES
            if not domains or any(one in url for one in domains)
        ]
        kept = results[: asked.get("max_results", 5)]
        return 200, {"query": asked["query"], "answer": None, "images": [], "results": kept}

    def _searxng(
        self, scope: Scope, _: dict[str, str], query: dict[str, str], __: bytes
    ) -> tuple[int, Any]:
        if scope["path"] != "/search" or query.get("format") != "json":
            return 403, {}
        results = [
            {"url": url, "title": title, "content": text, "engine": "example", "score": 1.0}
            for url, title, text in PAGES
        ]
        return 200, {"query": query["q"], "number_of_results": 0, "results": results, "answers": []}
