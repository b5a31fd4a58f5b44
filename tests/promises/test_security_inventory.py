"""There is no way into the gateway that isn't written down: no route beside the document, no page
of a framework, and no management on the public port where it has a port of its own."""

from __future__ import annotations

import pytest

from gateway.app import create_app
from gateway.contract import openapi_document
from gateway.settings import ServerSettings, Settings
from tests.support.inprocess import InProcessGateway

pytestmark = pytest.mark.anyio

MANAGEMENT = {"/livez", "/readyz", "/metrics"}
PAGES = (
    "/", "/docs", "/redoc", "/schema", "/schema/openapi.json", "/schema/swagger", "/openapi.json",
    "/swagger", "/admin", "/console", "/debug", "/debug/pprof", "/_debug", "/env", "/actuator",
    "/.env", "/.git/config", "/server-status", "/graphql", "/static/app.js", "/favicon.ico",
 "/v1/%2e%2e/livez",
)  # fmt: skip


def registered(application) -> set[tuple[str, str]]:
    """Method and path of everything that the router answers."""
    return {
        (method, route.path_format)
        for route in application.litestar.routes
        for method in route.methods - {"OPTIONS"}
    }


def test_every_route_is_in_the_document():
    """And the other way round."""
    application = create_app(Settings())
    document = openapi_document(application.handlers)
    described = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }
    assert {
        (method, path.replace("{model:path}", "{model}"))
        for method, path in registered(application)
    } == described


def test_the_edge_answers_nothing_that_the_router_does_not():
    """The short way of the data path is only shorter."""
    application = create_app(Settings())
    posts = {path for method, path in registered(application) if method == "POST"}
    assert application.public._relays.keys() <= posts


def test_management_leaves_the_public_port():
    """Where ``server.management_port`` is set."""
    application = create_app(Settings(server=ServerSettings(management_port=9090)))
    assert MANAGEMENT.isdisjoint(path for _, path in registered(application))
    assert application.management is not None
    assert {path for _, path in registered(create_app(Settings()))} >= MANAGEMENT


async def test_no_page_is_served_that_nobody_asked_for():
    """Not the framework's documentation, nor anything that scanners look for."""
    async with InProcessGateway(traced=False) as running, running.client() as client:
        for path in PAGES:
            answer = await client.get(path)
            assert answer.status_code == 404, path
            assert answer.json()["error"]["code"] == "unknown_url"


async def test_a_fault_shows_nothing_of_the_inside(monkeypatch):
    """No stack, no name of a file or a class: the log has them."""
    async with InProcessGateway(traced=False) as running, running.client() as client:
        service = running.application.discovery

        def fail(*_: object) -> None:
            raise RuntimeError("s3cret /etc/passwd")

        monkeypatch.setattr(type(service), "servers", property(fail))
        answer = await client.get("/v1/providers")
    assert answer.status_code == 500
    for word in ("s3cret", "RuntimeError", "Traceback", ".py", "litestar"):
        assert word not in answer.text
