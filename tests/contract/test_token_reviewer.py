"""The port `TokenReviewer`: what the cluster's API server says of a token."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from adapters.kubernetes.token_review import TokenReviews
from gateway.errors import Unauthenticated, UpstreamUnavailable
from gateway.settings import KubernetesSettings
from tests.support.small_server import SmallServer

pytestmark = pytest.mark.anyio

ALICE = {"authenticated": True, "user": {"username": "alice", "groups": ["a", "b"], "uid": "1"}}


class ApiServer(SmallServer):
    """Answers reviews with `status`."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(lambda _: (self.code, {"kind": "TokenReview", "status": self.status}), tls)
        self.code = 201
        self.status: Any = ALICE


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    async with ApiServer() as started:
        yield started


@pytest.fixture
def own(tmp_path) -> Path:
    file = tmp_path / "token"
    file.write_text("own-token\n")
    return file


@pytest.fixture
async def reviews(server, own) -> AsyncIterator[TokenReviews]:
    made = TokenReviews(KubernetesSettings(api_url=server.url, token_file=str(own), ca_file=None))
    yield made
    await made.aclose()


async def test_a_known_token_is_a_user_with_groups(server, reviews):
    """Asked with the pod's own token, as Kubernetes' API wants it."""
    user = await reviews.review("given")
    assert (user.username, list(user.groups)) == ("alice", ["a", "b"])
    [asked] = server.asked
    assert (asked.method, asked.path) == ("POST", "/apis/authentication.k8s.io/v1/tokenreviews")
    assert asked.headers["authorization"] == "Bearer own-token"
    assert asked.json == {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": "given"},
    }


async def test_the_pods_token_is_read_anew(server, reviews, own):
    """The kubelet rotates it."""
    own.write_text("another")
    await reviews.review("given")
    assert server.asked[0].headers["authorization"] == "Bearer another"


@pytest.mark.parametrize(
    "status",
    [
        {"authenticated": False},
        {"authenticated": False, "error": "token expired"},
        {},
        {"authenticated": True},
        {"authenticated": True, "user": {"username": ""}},
    ],
)
async def test_an_unknown_token_is_refused(server, reviews, status):
    """And what the server doesn't say counts as a no."""
    server.status = status
    with pytest.raises(Unauthenticated):
        await reviews.review("given")


@pytest.mark.parametrize(
    ("audiences", "known"), [(["understudy"], True), (["other"], False), ([], False)]
)
async def test_the_audience_must_be_ours(server, own, audiences, known):
    """A server that says nothing of audiences hasn't looked at them."""
    settings = KubernetesSettings(
        api_url=server.url, token_file=str(own), ca_file=None, audiences=["understudy"]
    )
    reviews = TokenReviews(settings)
    server.status = {**ALICE, "audiences": audiences}
    if known:
        assert (await reviews.review("given")).username == "alice"
    else:
        with pytest.raises(Unauthenticated):
            await reviews.review("given")
    assert server.asked[0].json["spec"]["audiences"] == ["understudy"]
    await reviews.aclose()


@pytest.mark.parametrize("code", [401, 403, 404, 429, 500, 302])
async def test_a_server_that_doesnt_answer_the_question_is_away(server, reviews, code):
    """503, not 401: the caller's token may be good. Redirects are not followed."""
    server.code = code
    with pytest.raises(UpstreamUnavailable) as raised:
        await reviews.review("given")
    assert raised.value.code == "identity_unavailable"
    assert "given" not in raised.value.message


@pytest.mark.parametrize("status", ["x", 1, {"user": 1}, {"authenticated": "yes"}])
async def test_junk_is_no_review(server, reviews, status):
    """Nobody comes in by it."""
    server.status = status
    with pytest.raises(UpstreamUnavailable):
        await reviews.review("given")


async def test_a_server_that_is_gone_is_away(server, reviews):
    """It hangs up."""
    server.down = True
    with pytest.raises(UpstreamUnavailable):
        await reviews.review("given")


async def test_a_pod_without_a_token_can_ask_nobody(server, reviews, own):
    """And says so."""
    own.unlink()
    with pytest.raises(UpstreamUnavailable):
        await reviews.review("given")
    assert not server.asked


async def test_the_clusters_own_authority_is_the_only_one(private_ca, tmp_path, own):
    """With its file the server is reached, with another it isn't."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    private_ca.issue_cert("127.0.0.1").configure_cert(context)
    file = tmp_path / "ca.pem"
    private_ca.cert_pem.write_to_path(file)
    async with ApiServer(context) as server:
        for ca_file, reached in ((str(file), True), (None, False)):
            settings = KubernetesSettings(api_url=server.url, token_file=str(own), ca_file=ca_file)
            reviews = TokenReviews(settings)
            if reached:
                assert (await reviews.review("given")).username == "alice"
            else:
                with pytest.raises(UpstreamUnavailable):
                    await reviews.review("given")
            await reviews.aclose()
