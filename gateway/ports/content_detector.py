"""What judges whether content is safe, apart from models of the catalog."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct, field

__all__ = ["ContentDetector", "Detection"]


class Detection(Struct, frozen=True, kw_only=True):
    """The judgement of one text. ``scores`` are from 0 to 1, by the detector's own categories."""

    flagged: bool
    scores: Mapping[str, float] = field(default_factory=dict)


class ContentDetector(Protocol):
    """A remote detector, such as a guardrails orchestrator."""

    async def detect(
        self, texts: Sequence[str], *, headers: Sequence[tuple[str, str]] = ()
    ) -> list[Detection]:
        """A judgement of each text, in their order. Raises ``UpstreamError``."""

    async def aclose(self) -> None:
        """Close connections."""
