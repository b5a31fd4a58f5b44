"""What runs the ingestion pipeline on a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from msgspec import Struct

__all__ = ["PipelineRun", "PipelineServer", "PipelineServerFailed", "PipelineTask", "RunState"]

RunState = Literal[
    "PENDING",
    "RUNNING",
    "SUCCEEDED",
    "SKIPPED",
    "FAILED",
    "CANCELING",
    "CANCELED",
    "PAUSED",
]


class PipelineServerFailed(Exception):
    """It said no, or can't be reached. The message is for people, and has no token in it.

    ``transient`` is True where the same call may work in a while.
    """

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.transient = transient


class PipelineTask(Struct, frozen=True, kw_only=True):
    """A task of a run; those of a loop have a name for each turn."""

    id: str
    name: str
    state: RunState
    pods: list[str] = []
    error: str | None = None


class PipelineRun(Struct, frozen=True, kw_only=True):
    id: str
    name: str
    state: RunState
    tasks: list[PipelineTask] = []
    error: str | None = None

    @property
    def is_over(self) -> bool:
        return self.state in ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")


class PipelineServer(Protocol):
    """Calls that change nothing are made again while the server is busy or away; a run is started
    at most once. Every method raises :class:`PipelineServerFailed`.
    """

    async def start(
        self,
        name: str,
        arguments: Mapping[str, Any],
        *,
        experiment: str,
        parallelism: int,
    ) -> PipelineRun:
        """Start a run of the ingestion pipeline in the experiment of this name, which is made
        where it is missing. ``arguments`` are the pipeline's; ``name`` has to be a new one.
        """

    async def run(self, run_id: str) -> PipelineRun:
        """How it stands."""

    async def aclose(self) -> None:
        """Close its connections."""
