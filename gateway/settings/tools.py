"""Tools that the gateway runs: servers of tools, the web."""

from __future__ import annotations

from gateway.settings.section import Section


class ToolSettings(Section, frozen=True):
    """Servers of tools (MCP)."""
