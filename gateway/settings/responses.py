"""Responses and batches."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from gateway.settings.section import PositiveFloat, PositiveInt, Section


class ResponseSettings(Section, frozen=True):
    """Bounds on what one response may do.

    ``ResponseSettings(max_iterations=20, timeout_seconds=1800)``
    """

    max_iterations: PositiveInt = 10
    """Turns of the model, where the request doesn't say (``max_infer_iters``)."""
    most_iterations: PositiveInt = 100
    """The most that a request may ask for."""
    max_tool_calls: PositiveInt = 100
    """Calls of tools that the gateway runs; a request may ask for fewer."""
    parallel_tool_calls: PositiveInt = 8
    """Tools of one turn that run at once."""
    timeout_seconds: PositiveFloat = 1800.0
    """For a whole response with all its turns."""
    max_context_items: PositiveInt = 2000
    """Items of earlier turns that a response may build on."""
    max_summary_tokens: PositiveInt = 2048
    """The longest summary that ``/v1/responses/compact`` has a model write."""
    workers: PositiveInt = 8
    """Responses in the background at once, for each process."""


class BatchSettings(Section, frozen=True):
    """How batches are worked off.

    ``BatchSettings(concurrency=32, yield_above=0)`` is quick, and gives way to the first caller.
    """

    workers: PositiveInt = 2
    """Batches in work at once, for each process."""
    concurrency: PositiveInt = 8
    """Requests of one batch at once, at most; fewer while the model servers are slow or refuse."""
    yield_above: Annotated[int, Meta(ge=0)] = 4
    """No request of a batch begins while more requests of callers than this are in flight at its
    model's servers."""
    patience_seconds: PositiveFloat = 10.0
    """A batch that has given way for so long may do one request all the same."""
    max_attempts: PositiveInt = 5
    """Of one request that the model server refuses or fails at."""
    max_lines: PositiveInt = 50_000
    """In one batch."""
    max_file_bytes: PositiveInt = 200 * 1024 * 1024
    """The largest input file."""
    window_seconds: PositiveInt = 24 * 3600
    """A batch that isn't done after so long expires."""
