"""The outermost layer: every request passes it on its way in and every answer on its way out.

It gives the request its id and its place in a trace, asks the gate who calls, adds the headers
that every answer has, turns what nobody caught into a 500, and tells telemetry when it is over.
Requests to the data path go from here straight to their relay; Litestar routes the others. The same
relays are registered as Litestar handlers (see :mod:`gateway.http.relayed`), so the short way is
only shorter.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry.context import attach, detach

from gateway.errors import GatewayError, ShuttingDown
from gateway.http.refusal import refuse
from gateway.observability.exchange import Exchange

if TYPE_CHECKING:
    from gateway.http.asgi import ASGIApp, Message, Receive, Scope, Send
    from gateway.http.gate import Gate
    from gateway.observability.telemetry import Telemetry
    from gateway.relay.relay import Relay

logger = logging.getLogger(__name__)


class Edge:
    """``relays`` maps a path to the relay that answers a POST to it; ``app`` answers the rest.

    Where there is no ``gate``, everybody may do everything.
    """

    def __init__(
        self,
        app: ASGIApp,
        telemetry: Telemetry,
        relays: Mapping[str, Relay],
        gate: Gate | None = None,
    ) -> None:
        self._app = app
        self._telemetry = telemetry
        self._relays = relays
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange(scope)
        scope.setdefault("state", {})["exchange"] = exchange

        async def send_out(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                message["headers"] = [*message["headers"], *exchange.answer_headers()]
            await send(message)

        self._telemetry.begin(exchange)
        relay = self._relays.get(exchange.path) if exchange.method == "POST" else None
        try:
            if self._gate is not None:
                try:
                    await self._gate.admit(exchange, scope)
                except GatewayError as refusal:
                    exchange.fail(refusal)
                    body = relay.operation.error_body(refusal) if relay is not None else None
                    await refuse(refusal, send_out, body)
                    return
            if relay is not None:
                exchange.route = exchange.path
                await relay(scope, receive, send_out)
            else:
                await self._route(exchange, scope, receive, send_out)
        except asyncio.CancelledError:
            # Only a server that ends cancels a request from outside. The task is over with this,
            # so there is nobody above to tell.
            error = ShuttingDown("The gateway is shutting down. Try again.")
            exchange.fail(error)
            if not exchange.answered:
                await refuse(error, send_out)
        except Exception as error:  # noqa: BLE001  (the last resort: logged, counted, answered)
            await self._crash(exchange, error, send_out)
        finally:
            self._telemetry.end(exchange)

    async def _route(self, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        token: Any = attach(exchange.trace.context()) if exchange.trace is not None else None
        try:
            await self._app(scope, receive, send)
        finally:
            exchange.route = scope.get("path_template", "") or ""
            if token is not None:
                detach(token)

    async def _crash(self, exchange: Exchange, error: Exception, send: Send) -> None:
        exchange.error_type = type(error).__name__
        logger.error(
            "A request failed inside the gateway", exc_info=error, extra=exchange.log_fields()
        )
        shown = GatewayError(
            f"The gateway failed. Its log has the details under {exchange.request_id.decode()}."
        )
        if not exchange.answered:
            await refuse(shown, send)
