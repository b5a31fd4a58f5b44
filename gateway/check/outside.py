"""Web search, servers of tools and detectors: each is asked once as a request would ask it."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from functools import partial

from gateway.check.finding import Outcome, failed, fine, shown, skipped
from gateway.check.mending import mend_of
from gateway.check.probe import Probe, closed_after
from gateway.check.systems import Systems
from gateway.errors import UpstreamError
from gateway.ports import ToolServerFailed, WebSearchFailed
from gateway.settings import ConnectorSettings, DetectorSettings
from gateway.tools.connectors import ConnectorRegistry

__all__ = ["probes"]

_QUERY = "weather"
_TEXT = "Good morning."


def probes(systems: Systems) -> list[Probe]:
    settings = systems.settings
    search = settings.web_search
    address = shown(search.url) if search.url else search.kind
    found = [Probe(system="web search", address=address, look=lambda: _search(systems))]
    if search.kind == "none":
        found = []
    for connector in settings.tools.connectors:
        look = partial(_connector, systems, connector)
        found.append(Probe(system="connector", address=shown(connector.url), look=look))
    for detector in settings.moderation.detectors:
        look = partial(_detector, systems, detector)
        found.append(Probe(system="detector", address=shown(detector.url), look=look))
    return found


async def _search(systems: Systems) -> Outcome:
    search = systems.search()
    if search is None:
        return skipped("no engine is configured")
    try:
        async with closed_after(search):
            pages = await search.search(_QUERY, limit=1)
    except WebSearchFailed as error:
        return failed(
            error.message,
            "Compare web_search.url and web_search.api_key with the engine's; SearXNG needs "
            "`search.formats: [html, json]`; a closed network needs its proxy or SearXNG inside.",
        )
    return fine(f"answers with {len(pages)} page{'s' if len(pages) != 1 else ''}")


async def _connector(systems: Systems, connector: ConnectorSettings) -> Outcome:
    name = connector.id
    try:
        address = ConnectorRegistry([connector]).address(name, name)
        async with (
            closed_after(systems.tool_servers()) as servers,
            servers.open(address) as session,
        ):
            tools = await session.list_tools()
            described = f"{name}: {len(tools)} tool{'s' if len(tools) != 1 else ''}"
            return fine(f"{described}, MCP {session.protocol_version} by {session.transport}")
    except ToolServerFailed as error:
        if error.status in (401, 403):
            mend = "Give the connector's authorization or authorization_file, or renew the token."
        else:
            mend = "Compare the connector's url (with its path, often /mcp) and its ca_file."
        return failed(error.message, mend)
    except UpstreamError as error:
        return failed(error.message, "Mount the file of authorization_file.")


async def _detector(systems: Systems, settings: DetectorSettings) -> Outcome:
    began = time.monotonic()
    try:
        async with AsyncExitStack() as stack:
            detectors = systems.detectors()
            for one in detectors.values():
                await stack.enter_async_context(closed_after(one))
            await detectors[settings.name].detect([_TEXT])
    except UpstreamError as error:
        return failed(f"{settings.name}: {error.message}", mend_of(error))
    return fine(f"{settings.name} judged a text in {time.monotonic() - began:.2f} s")
