"""Tools that the gateway runs: servers of tools, the web; and which URLs callers may name."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from gateway.settings.section import PositiveFloat, PositiveInt, Section


class ConnectorSettings(Section, frozen=True):
    """A server of tools (MCP) that callers name by its id.

    ``ConnectorSettings(id="tickets", url="https://tickets.svc/mcp", authorization="${TOKEN}")``
    """

    id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}$")]
    url: str
    name: str | None = None
    """What the server is called where nothing else is known of it."""
    description: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    """Of every request to it."""
    authorization: str | None = None
    """An OAuth access token, sent as ``authorization: Bearer …``."""
    authorization_file: str | None = None
    """A file with that token, read again for every session (a mounted Secret)."""
    ca_file: str | None = None
    """A private authority for this server's certificate; ``tools.ca_file`` when left out."""


class ToolSettings(Section, frozen=True):
    """Servers of tools (MCP)."""

    connectors: list[ConnectorSettings] = field(default_factory=list)
    allowed_hosts: list[str] = field(default_factory=list)
    """Hosts of the servers that callers may name by URL."""
    ca_file: str | None = None
    """A private authority for their certificates."""
    connect_seconds: PositiveFloat = 15.0
    """For opening a session, by either transport."""
    list_seconds: PositiveFloat = 30.0
    """For listing the tools, all pages."""
    call_seconds: PositiveFloat = 120.0
    """For one call of a tool."""
    close_seconds: PositiveFloat = 2.0
    """For saying goodbye."""
    max_tools: PositiveInt = 256
    """Of one server."""
    max_schema_bytes: PositiveInt = 65_536
    """Of one tool's description and schemas."""
    max_output_bytes: PositiveInt = 131_072
    """Of what a call shows to the model; more is cut off."""
    max_message_bytes: PositiveInt = 4_194_304
    """Of what a server may send in answer to one message."""


class UrlSettings(Section, frozen=True):
    """Files and images that callers name by URL."""

    allowed_hosts: list[str] = field(default_factory=list)
    ca_file: str | None = None
    timeout_seconds: PositiveFloat = 20.0
    """For all of one file."""


class WebSearchSettings(Section, frozen=True):
    """The search engine behind the tool ``web_search``.

    ``WebSearchSettings(kind="searxng", url="http://searxng:8080")``
    """

    kind: Literal["none", "brave", "tavily", "searxng"] = "none"
    url: str | None = None
    """The service's own when left out; required for ``searxng``."""
    api_key: str | None = None
    api_key_file: str | None = None
    """A file with the key, read again for every search (a mounted Secret)."""
    ca_file: str | None = None
    timeout_seconds: PositiveFloat = 15.0
    max_results: Annotated[int, Meta(ge=1, le=20)] = 5
