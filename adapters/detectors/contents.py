"""The ``ContentDetector`` port on ``POST /api/v1/text/contents``.

The request has a list of texts, the answer a list of detections for each, in their order. Which
detector is meant is said by the header ``detector-id``, for servers that have several.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import NoReturn

import httpx
import msgspec
from msgspec import Struct

from adapters.vllm.credentials import Credentials
from adapters.vllm.tls import context_for
from gateway.errors import (
    InvalidRequest,
    UpstreamConnectTimeout,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamUnreachable,
)
from gateway.ports import Detection
from gateway.settings import DetectorSettings

__all__ = ["ContentsDetector"]

PATH = "/api/v1/text/contents"

_MAX_ANSWER_BYTES = 16 * 1024 * 1024
_MAX_CONNECTIONS = 64


class _Detection(Struct, frozen=True):
    """``sequence_classification`` is from early servers, whose ``detection_type`` is a kind of
    model.
    """

    score: float
    detection_type: str = ""
    detection: str = ""
    sequence_classification: str | None = None

    @property
    def name(self) -> str:
        return self.sequence_classification or self.detection_type or self.detection or "detection"


_answers = msgspec.json.Decoder(list[list[_Detection]])


class ContentsDetector:
    """Reached at ``settings.url``, with the path of a prefix kept. It connects when it is asked."""

    def __init__(self, settings: DetectorSettings) -> None:
        self._settings = settings
        backend = settings.backend()
        self._url = settings.url.rstrip("/").removesuffix(PATH) + PATH
        self._credentials = Credentials(backend)
        tls: ssl.SSLContext | None = context_for(backend)
        self._client = httpx.AsyncClient(
            headers={"detector-id": settings.detector_id or settings.name},
            timeout=settings.timeout_seconds,
            limits=httpx.Limits(max_connections=_MAX_CONNECTIONS),
            verify=tls if tls is not None else True,
            follow_redirects=False,
            trust_env=False,
        )

    async def detect(
        self, texts: Sequence[str], *, headers: Sequence[tuple[str, str]] = ()
    ) -> list[Detection]:
        if not texts:
            return []
        body = {"contents": list(texts), "detector_params": self._settings.params}
        answer = await self._ask(msgspec.json.encode(body), headers)
        try:
            found = _answers.decode(answer)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise self._error("answered in an unknown shape") from None
        if len(found) != len(texts):
            raise self._error(f"judged {len(found)} of {len(texts)} texts")
        return [self._detection(one) for one in found]

    async def aclose(self) -> None:
        await self._client.aclose()

    def _detection(self, found: Sequence[_Detection]) -> Detection:
        scores: dict[str, float] = {}
        for one in found:
            score = min(max(one.score, 0.0), 1.0)
            scores[one.name] = max(score, scores.get(one.name, 0.0))
        threshold = self._settings.threshold
        return Detection(
            flagged=any(score >= threshold for score in scores.values()), scores=scores
        )

    async def _ask(self, body: bytes, headers: Sequence[tuple[str, str]]) -> bytes:
        """The body of a 200. Raises what the port says."""
        sent = [("content-type", "application/json"), *headers, *self._authorization()]
        blocks: list[bytes] = []
        size = 0
        try:
            async with self._client.stream(
                "POST", self._url, content=body, headers=sent
            ) as response:
                async for block in response.aiter_bytes():
                    size += len(block)
                    if size > _MAX_ANSWER_BYTES:
                        raise self._error("answered with more than can be read")
                    blocks.append(block)
        except (httpx.ConnectTimeout, httpx.PoolTimeout):
            raise UpstreamConnectTimeout(self._words("took too long to connect")) from None
        except httpx.TimeoutException:
            raise UpstreamTimeout(self._words("took too long")) from None
        except httpx.ConnectError:
            raise UpstreamUnreachable(self._words("can't be reached")) from None
        except httpx.HTTPError:
            raise self._error("broke off") from None
        if response.status_code != 200:
            self._refuse(response.status_code, b"".join(blocks))
        return b"".join(blocks)

    def _authorization(self) -> list[tuple[str, str]]:
        line = self._credentials.header_line().decode("ascii")
        name, _, value = line.strip().partition(": ")
        return [(name, value)] if value else []

    def _refuse(self, status: int, body: bytes) -> NoReturn:
        if status in (400, 413, 422):
            raise InvalidRequest(
                f"The detector '{self._settings.name}' can't judge this (status {status}"
                f"{_reason(body)}).",
                param="input",
            )
        if status in (401, 403):
            raise self._error("refuses the gateway's credentials")
        if status in (429, 503):
            raise UpstreamUnavailable(self._words("is overloaded or not ready"))
        raise self._error(f"answered with status {status}")

    def _error(self, what: str) -> UpstreamError:
        return UpstreamError(self._words(what))

    def _words(self, what: str) -> str:
        return f"The detector '{self._settings.name}' {what}."


class _Refusal(Struct, frozen=True):
    message: str = ""


def _reason(body: bytes) -> str:
    """What the detector's own error says, such as a text that is too long."""
    try:
        message = msgspec.json.decode(body, type=_Refusal).message
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    return f": {message[:300]}" if message else ""
