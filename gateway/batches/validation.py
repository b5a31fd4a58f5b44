"""Looking through an input file before its first line is done."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import aclosing

from msgspec import Struct, field

from gateway.batches.lines import InputLine, LineRefused, LineRequest, parse_line, read_lines
from gateway.batches.schemas import BatchError
from gateway.errors import ModelNotFound, WrongKind
from gateway.http.download import Content
from gateway.routing.catalog import AllowedModels, Catalog

__all__ = ["Findings", "Validator"]

_MOST_ERRORS = 100
"""How many are told."""

_LINES_IN_A_TURN = 200
"""After so many others get a turn on the event loop."""


class Findings(Struct, kw_only=True):
    """What was found. ``model`` is set where all lines name the same one."""

    total: int = 0
    models: set[str] = field(default_factory=set)
    errors: list[BatchError] = field(default_factory=list)
    unknown_models: bool = False
    """One of the errors is a model that isn't there."""

    @property
    def model(self) -> str | None:
        return next(iter(self.models)) if len(self.models) == 1 else None


class Validator:
    """``kinds`` of an endpoint are those that a line's model may be of; ``allowed`` are the ids of
    those that the batch's creator may use.
    """

    def __init__(self, catalog: Catalog, *, max_lines: int, longest_line: int) -> None:
        self._catalog = catalog
        self._max_lines = max_lines
        self._longest_line = longest_line

    async def check(
        self,
        content: Content,
        endpoint: str,
        kinds: tuple[str, ...],
        allowed: AllowedModels = None,
    ) -> Findings:
        """Raises what the content raises."""
        findings = Findings()
        seen: set[bytes] = set()
        async with aclosing(read_lines(content, self._longest_line)) as lines:
            async for line in lines:
                findings.total += 1
                if findings.total > self._max_lines:
                    message = f"The file has more than {self._max_lines} requests."
                    findings.errors.append(BatchError("too_many_tasks", message, None, line.number))
                    break
                try:
                    request = _request(line, endpoint, seen)
                    self._check_model(findings, request, kinds, allowed)
                except LineRefused as refused:
                    findings.errors.append(
                        BatchError(refused.code, refused.message, refused.param, line.number)
                    )
                if len(findings.errors) >= _MOST_ERRORS:
                    break
                if findings.total % _LINES_IN_A_TURN == 0:
                    await asyncio.sleep(0)
        if not findings.total:
            findings.errors.append(BatchError("empty_file", "The input file has no requests."))
        return findings

    def _check_model(
        self,
        findings: Findings,
        request: LineRequest,
        kinds: tuple[str, ...],
        allowed: AllowedModels,
    ) -> None:
        try:
            self._catalog.find(request.model, kinds, allowed)
        except ModelNotFound as error:
            findings.unknown_models = True
            raise LineRefused("model_not_found", error.message, "body.model") from None
        except WrongKind as error:
            raise LineRefused("model_not_supported", error.message, "body.model") from None
        findings.models.add(request.model)


def _request(line: InputLine, endpoint: str, seen: set[bytes]) -> LineRequest:
    if line.content is None:
        raise LineRefused("line_too_long", "This line is longer than a request may be.")
    request = parse_line(line.content, endpoint)
    digest = hashlib.sha256(request.custom_id.encode()).digest()[:16]
    if digest in seen:
        raise LineRefused(
            "duplicate_custom_id",
            f"The custom_id '{request.custom_id}' is used more than once.",
            "custom_id",
        )
    seen.add(digest)
    return request
