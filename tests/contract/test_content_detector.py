"""What the application may rely on of any `ContentDetector`, run on every adapter there is.

A new adapter adds its name to ``ADAPTERS`` and passes the same suite.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from adapters.detectors import ContentsDetector
from gateway.errors import (
    InvalidRequest,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamUnreachable,
)
from gateway.ports import ContentDetector, Detection
from gateway.settings import DetectorSettings, SettingsError
from tests.support.detectors import DetectorServer
from tests.support.gateway import free_port

pytestmark = pytest.mark.anyio

ADAPTERS: dict[str, Callable[[DetectorSettings], ContentDetector]] = {"contents": ContentsDetector}
WORDS = {"idiot": "hap", "555-1234": "pii"}


@pytest.fixture
def server() -> Iterator[DetectorServer]:
    with DetectorServer(WORDS) as started:
        yield started


@pytest.fixture(params=ADAPTERS)
async def make(request):
    """Makes detectors, which are closed at the end."""
    made: list[ContentDetector] = []

    def one(url: str, **settings: Any) -> ContentDetector:
        detector = ADAPTERS[request.param](DetectorSettings(name="words", url=url, **settings))
        made.append(detector)
        return detector

    yield one
    for detector in made:
        await detector.aclose()


async def test_each_text_is_judged_in_its_place(make, server):
    """What is found is named as the detector names it, and what is clean has no scores."""
    detector = make(server.url)
    assert await detector.detect(["You idiot!", "Hello.", "Call 555-1234, idiot."]) == [
        Detection(flagged=True, scores={"hap": 0.9}),
        Detection(flagged=False),
        Detection(flagged=True, scores={"hap": 0.9, "pii": 0.9}),
    ]


async def test_nothing_is_asked_about_nothing(make, server):
    """No texts, no call."""
    assert await make(server.url).detect([]) == []
    assert server.requests == []


async def test_the_threshold_decides(make, server):
    """A score below it is told, and not flagged."""
    server.score = 0.6
    [found] = await make(server.url, threshold=0.7).detect(["idiot"])
    assert found == Detection(flagged=False, scores={"hap": 0.6})
    [found] = await make(server.url, threshold=0.6).detect(["idiot"])
    assert found.flagged


async def test_a_score_stays_between_0_and_1(make, server):
    """Whatever a server counts in."""
    server.score = 97.5
    [found] = await make(server.url).detect(["idiot"])
    assert found.scores == {"hap": 1.0}


async def test_early_servers_say_elsewhere_what_they_found(make, server):
    """There `detection_type` is the kind of model."""
    server.early = True
    [found] = await make(server.url).detect(["idiot"])
    assert found.scores == {"hap": 0.9}


async def test_what_a_server_needs_to_know_is_sent(make, server):
    """Which detector, its parameters, the texts, and the headers of the trace."""
    detector = make(server.url, detector_id="hap-en", params={"regex": ["email"]})
    await detector.detect(["a", "b"], headers=[("traceparent", "00-1-2-01")])
    [request] = server.requests
    assert request.headers["detector-id"] == "hap-en"
    assert request.headers["traceparent"] == "00-1-2-01"
    assert request.headers["content-type"] == "application/json"
    assert "authorization" not in request.headers
    assert request.body == {"contents": ["a", "b"], "detector_params": {"regex": ["email"]}}


async def test_without_an_id_the_name_is_sent(make, server):
    """Servers with one detector take any."""
    await make(server.url + "/").detect(["a"])
    assert server.requests[0].headers["detector-id"] == "words"


async def test_a_token_is_sent_and_read_again(make, server, tmp_path: Path):
    """From the settings, or from a file that may be missing a token for a moment."""
    server.token = "t-1"
    await make(server.url, api_key="t-1").detect(["a"])
    file = tmp_path / "token"
    file.write_text("t-1\n")
    detector = make(server.url, api_key_file=str(file))
    await detector.detect(["a"])
    file.write_text("t-22\n")
    server.token = "t-22"
    await asyncio.sleep(1.05)  # a file is looked at once a second
    await detector.detect(["a"])


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, InvalidRequest),
        (422, InvalidRequest),
        (404, UpstreamError),
        (302, UpstreamError),
        (429, UpstreamUnavailable),
        (500, UpstreamError),
        (503, UpstreamUnavailable),
    ],
)
async def test_a_refusal_is_told(make, server, status, error):
    """What is too long is the caller's to shorten, the rest a fault of the server."""
    server.fail_with = status
    with pytest.raises(error) as raised:
        await make(server.url).detect(["idiot"])
    assert type(raised.value) is error
    assert "words" in raised.value.message
    assert server.url.partition("//")[2] not in raised.value.message
    assert ("as told" in raised.value.message) == (error is InvalidRequest)


async def test_a_wrong_token_is_no_fault_of_the_caller(make, server):
    """The token isn't shown either."""
    server.token = "right"
    with pytest.raises(UpstreamError) as raised:
        await make(server.url, api_key="wrong-77").detect(["a"])
    assert raised.value.status == 502
    assert "wrong-77" not in raised.value.message


@pytest.mark.parametrize(
    "raw",
    [b"", b"{}", b"null", b"[[{}]]", b'[[{"score": "high"}]]', b"[]", b"[[], []]", b"\xff", b"["],
)
async def test_an_answer_that_says_nothing_clear_is_an_error(make, server, raw):
    """It is never taken for a text that is fine."""
    server.raw = raw
    with pytest.raises(UpstreamError):
        await make(server.url).detect(["idiot"])


async def test_a_server_that_is_not_there(make):
    """Another server can't be asked, but the caller may try again."""
    with pytest.raises(UpstreamUnreachable):
        await make(f"http://127.0.0.1:{free_port()}").detect(["a"])


async def test_a_slow_server(make, server):
    """It is waited for as long as the settings say."""
    server.seconds = 0.4
    with pytest.raises(UpstreamTimeout):
        await make(server.url, timeout_seconds=0.1).detect(["a"])


async def test_a_private_authority_is_trusted_where_it_is_named(
    make, private_ca: trustme.CA, tmp_path: Path
):
    """And a certificate by somebody unknown is not taken."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    private_ca.issue_cert("127.0.0.1").configure_cert(context)
    authority = tmp_path / "ca.pem"
    private_ca.cert_pem.write_to_path(str(authority))
    with DetectorServer(WORDS, tls=context) as server:
        assert (await make(server.url, ca_file=str(authority)).detect(["idiot"]))[0].flagged
        with pytest.raises(UpstreamUnreachable):
            await make(server.url).detect(["idiot"])


def test_files_that_cannot_be_used_end_the_start(tmp_path: Path):
    """The message names the server."""
    broken = tmp_path / "ca.pem"
    broken.write_text("nothing")
    with pytest.raises(SettingsError, match="detectors"):
        ContentsDetector(
            DetectorSettings(name="words", url="https://detectors:8443", ca_file=str(broken))
        )
