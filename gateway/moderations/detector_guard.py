"""A remote detector as a guard."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from opentelemetry.trace import SpanKind

from gateway.moderations.conversation import Conversation
from gateway.moderations.gathering import all_of
from gateway.moderations.judgement import Judgement
from gateway.observability import semconv
from gateway.observability.activity import Activity
from gateway.ports import ContentDetector, Detection
from gateway.settings import DetectorSettings, ModerationCategory

__all__ = ["DetectorGuard"]

_MOST_TEXTS = 32
"""In one call."""


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
        texts = [one[-1].text for one in conversations]
        batches = [texts[at : at + _MOST_TEXTS] for at in range(0, len(texts), _MOST_TEXTS)]
        judged = await all_of(self._detect(activity, one) for one in batches)
        return [self._judgement(detection) for detections in judged for detection in detections]

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
