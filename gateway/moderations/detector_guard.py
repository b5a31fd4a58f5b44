"""A remote detector as a guard."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from urllib.parse import urlsplit

from opentelemetry.trace import SpanKind

from gateway.moderations.conversation import Conversation
from gateway.moderations.gathering import all_of
from gateway.moderations.judgement import Judgement, merged
from gateway.observability import semconv
from gateway.observability.activity import Activity
from gateway.ports import ContentDetector, Detection
from gateway.settings import DetectorSettings, ModerationCategory

__all__ = ["DetectorGuard"]

_MOST_TEXTS = 32
"""In one call."""

_OVERLAP = 8
"""The part of a piece that the next one has too."""


class DetectorGuard:
    """It is shown the judged message alone: detectors know texts, not conversations."""

    provider_id = "trustyai_fms"
    takes_images = False

    def __init__(
        self, detector: ContentDetector, settings: DetectorSettings, turns: asyncio.Semaphore
    ) -> None:
        self.name = settings.name
        self.categories: Mapping[str, Sequence[ModerationCategory]] = settings.categories
        self._detector = detector
        self._settings = settings
        self._turns = turns
        url = urlsplit(settings.url)
        self._attributes = {
            semconv.DETECTOR_NAME: settings.name,
            semconv.SERVER_ADDRESS: url.hostname or "",
            semconv.SERVER_PORT: url.port or (443 if url.scheme == "https" else 80),
        }

    async def judge(
        self, activity: Activity, conversations: Sequence[Conversation]
    ) -> list[Judgement]:
        pieces = [self._pieces(one[-1].text) for one in conversations]
        texts = [text for some in pieces for text in some]
        batches = [texts[at : at + _MOST_TEXTS] for at in range(0, len(texts), _MOST_TEXTS)]
        judged = await all_of(partial(self._detect, activity), batches)
        judgements = (self._judgement(one) for detections in judged for one in detections)
        return [merged([next(judgements) for _ in some]) for some in pieces]

    def _pieces(self, text: str) -> list[str]:
        """The text, or parts of it that the detector reads whole; each begins in the one before."""
        most = self._settings.max_characters or len(text)
        if len(text) <= most:
            return [text]
        overlap = most // _OVERLAP
        return [text[at : at + most] for at in range(0, len(text) - overlap, most - overlap)]

    async def _detect(self, activity: Activity, texts: Sequence[str]) -> list[Detection]:
        async with self._turns:
            with activity.step(
                f"detect {self.name}",
                kind=SpanKind.CLIENT,
                attributes={**self._attributes, semconv.DETECTOR_TEXTS: len(texts)},
            ) as step:
                traceparent = step.traceparent()
                headers = [("traceparent", traceparent)] if traceparent is not None else []
                detections = await self._detector.detect(texts, headers=headers)
                step.attributes[semconv.DETECTOR_FLAGGED] = sum(one.flagged for one in detections)
        return detections

    def _judgement(self, detection: Detection) -> Judgement:
        threshold = self._settings.threshold
        violated = [name for name, score in detection.scores.items() if score >= threshold]
        return Judgement(
            flagged=detection.flagged,
            violated=violated if detection.flagged else [],
            scores=detection.scores,
        ).without(self._settings.excluded_categories)
