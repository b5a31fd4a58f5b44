"""Asking a model for the gateway's own needs: the answer is read, not relayed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.errors import GatewayError, UpstreamError
from gateway.observability.activity import Activity
from gateway.relay.answer import LARGE_BYTES, read_answer, read_large_answer
from gateway.relay.operation import Operation
from gateway.routing.catalog import Backend, Catalog

__all__ = ["ModelClient"]

_ELSEWHERE = frozenset({429, 500, 502, 503})
"""What one server says that another may not."""


class ModelClient:
    """Calls models of the catalog, each call a CLIENT span below the activity it belongs to."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def ask(
        self, operation: Operation[Any], activity: Activity, request: Mapping[str, Any]
    ) -> bytes:
        """The JSON answer to a request without ``stream``; ``request["model"]`` names the model.

        Its backends are asked in turn until one answers. Raises ``ModelNotFound``, ``WrongKind``,
        ``InvalidRequest`` for what the server refuses, and ``UpstreamError``. Cancelling it stops
        the server's work.
        """
        body = dict(request)
        model = self._catalog.find(body["model"], operation.kinds)
        backends = model.candidates()
        for position, backend in enumerate(backends):
            body["model"] = backend.model
            encoded = msgspec.json.encode(body)
            seen = operation.decode(msgspec.json.encode({**body, "model": model.id}))
            try:
                return await self._ask(operation, activity, seen, encoded, backend)
            except GatewayError as error:
                elsewhere = error.nothing_sent or error.status in _ELSEWHERE
                if position == len(backends) - 1 or not elsewhere:
                    raise
        raise AssertionError("a model has a backend")

    async def _ask(
        self,
        operation: Operation[Any],
        activity: Activity,
        request: Any,
        body: bytes,
        backend: Backend,
    ) -> bytes:
        server = backend.server
        call = activity.begin_call(operation, request, backend)
        try:
            answer = await server.send(operation.path, body, activity.upstream_headers(call))
            try:
                if answer.status != 200:
                    raise await server.refusal(operation.path, answer)
                if answer.content_type != "application/json":
                    raise UpstreamError(
                        f"The model server answered with {answer.content_type or 'no type'} "
                        "where JSON was due.",
                        code="upstream_not_json",
                    )
                blocks = await answer.read()
            finally:
                answer.close()
            joined = blocks[0] if len(blocks) == 1 else b"".join(blocks)
            if not (
                operation.large_answers
                and len(joined) > LARGE_BYTES
                and read_large_answer(call, blocks)
            ):
                read_answer(call, joined)
        except GatewayError as error:
            call.end(error.error_type)
            raise
        except asyncio.CancelledError:
            call.end("cancelled")
            raise
        finally:
            activity.end_call(call)
        return joined
