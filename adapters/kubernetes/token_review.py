"""Asking the cluster's API server whose a token is: the ``TokenReviewer`` port."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx
import msgspec
from msgspec import Struct, field

from gateway.errors import Unauthenticated, UpstreamUnavailable
from gateway.ports import ReviewedUser
from gateway.settings import KubernetesSettings, is_header_value

__all__ = ["TokenReviews"]

TIMEOUT_SECONDS = 5.0
_PATH = "/apis/authentication.k8s.io/v1/tokenreviews"
_MAX_ANSWER_BYTES = 1024 * 1024


class _User(Struct, frozen=True):
    username: str = ""
    groups: list[str] = field(default_factory=list)


class _Status(Struct, frozen=True):
    authenticated: bool = False
    user: _User = field(default_factory=_User)
    audiences: list[str] = field(default_factory=list)


class _Review(Struct, frozen=True):
    status: _Status = field(default_factory=_Status)


class TokenReviews:
    """Reviews are asked for with the pod's own token, read anew each time: it rotates.

    The pod's service account needs ``create`` on ``tokenreviews``, which the cluster role
    ``system:auth-delegator`` gives.
    """

    def __init__(self, settings: KubernetesSettings) -> None:
        self._audiences = settings.audiences
        self._token_file = Path(settings.token_file)
        # Where a private authority is given, no other is believed: the API server decides who
        # comes in.
        self._client = httpx.AsyncClient(
            base_url=settings.api_url,
            verify=ssl.create_default_context(cafile=settings.ca_file),
            timeout=TIMEOUT_SECONDS,
            follow_redirects=False,
            trust_env=False,
        )

    async def review(self, token: str) -> ReviewedUser:
        spec = {"token": token, **({"audiences": self._audiences} if self._audiences else {})}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
        status = await self._ask(msgspec.json.encode(body))
        if not status.authenticated or not status.user.username:
            raise Unauthenticated("The cluster doesn't know this token.")
        # A server that knows nothing of audiences answers without any: then nobody has looked.
        if self._audiences and not set(self._audiences) & set(status.audiences):
            raise Unauthenticated("The token is not meant for this gateway.")
        return ReviewedUser(username=status.user.username, groups=status.user.groups)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _ask(self, body: bytes) -> _Status:
        try:
            answer = await self._client.post(
                _PATH,
                content=body,
                headers={
                    "authorization": f"Bearer {self._own_token()}",
                    "content-type": "application/json",
                    "accept": "application/json",
                },
            )
        except httpx.HTTPError as error:
            raise _unavailable("it can't be reached") from error
        if answer.status_code in (401, 403):
            raise _unavailable("it doesn't let the gateway review tokens")
        if answer.status_code not in (200, 201) or len(answer.content) > _MAX_ANSWER_BYTES:
            raise _unavailable(f"it answered {answer.status_code}")
        try:
            return msgspec.json.decode(answer.content, type=_Review).status
        except (msgspec.DecodeError, RecursionError) as error:
            raise _unavailable("its answer is no TokenReview") from error

    def _own_token(self) -> str:
        """A projected file of the kubelet's, in memory; it is small and read without waiting."""
        try:
            token = self._token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise _unavailable("the pod's own token can't be read") from error
        if not token or not is_header_value(token):
            raise _unavailable("the pod's own token is none")
        return token


def _unavailable(why: str) -> UpstreamUnavailable:
    return UpstreamUnavailable(
        f"The cluster can't be asked about tokens at the moment: {why}.",
        code="identity_unavailable",
    )
