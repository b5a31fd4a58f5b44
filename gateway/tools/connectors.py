"""Tool servers that the configuration names, which callers use by their ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from gateway.errors import InvalidRequest, UpstreamError
from gateway.ports import ToolServerAddress
from gateway.settings import ConnectorSettings
from gateway.tools.credentials import check_headers, request_headers

__all__ = ["ConnectorRegistry"]


class ConnectorRegistry:
    def __init__(self, connectors: Sequence[ConnectorSettings]) -> None:
        self._connectors = {one.id: one for one in connectors}

    def all(self) -> list[ConnectorSettings]:
        return list(self._connectors.values())

    def find(self, connector_id: str) -> ConnectorSettings | None:
        return self._connectors.get(connector_id)

    def address(
        self,
        connector_id: str,
        label: str,
        *,
        authorization: str | None = None,
        headers: Mapping[str, str] | None = None,
        param: str = "tools",
    ) -> ToolServerAddress:
        """How to reach it. A caller's own token takes the place of the configured one; its other
        headers add to those of the configuration, which win.

        Raises ``InvalidRequest`` that names ``{param}.connector_id`` where there is none.
        """
        connector = self._connectors.get(connector_id)
        if connector is None:
            known = ", ".join(f"'{one}'" for one in self._connectors) or "none"
            raise InvalidRequest(
                f"Invalid value for '{param}.connector_id': there is no connector "
                f"'{connector_id[:100]}'. The gateway's configuration has: {known}.",
                param=f"{param}.connector_id",
                code="invalid_value",
            )
        own = {name.lower(): value for name, value in connector.headers.items()}
        given = check_headers(headers or {}, authorization, param)
        merged = {**given, **own}
        if "authorization" in given:
            merged["authorization"] = given["authorization"]
        elif (token := _token(connector)) is not None:
            merged |= request_headers({}, token)
        return ToolServerAddress(
            label=label,
            url=connector.url,
            headers=merged,
            trusted=True,
            ca_file=connector.ca_file,
        )


def _token(connector: ConnectorSettings) -> str | None:
    if connector.authorization_file is None:
        return connector.authorization
    try:
        return Path(connector.authorization_file).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        raise UpstreamError(
            f"The token of the connector '{connector.id}' can't be read.", code="tool_server_failed"
        ) from None
