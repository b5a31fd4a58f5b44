"""Servers of tools that speak the Model Context Protocol, by its official SDK."""

from adapters.mcp.server import McpServer

__all__ = ["McpServer"]
