"""Responses and batches."""

from __future__ import annotations

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
    workers: PositiveInt = 8
    """Responses in the background at once, for each process."""


class BatchSettings(Section, frozen=True):
    """How batches are worked off."""

    workers: PositiveInt = 2
    """Batches in work at once, for each process."""
    concurrency: PositiveInt = 8
    """Requests of one batch at once."""
