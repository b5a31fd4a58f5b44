"""Reading what a caller's URL points to, within the policy of ``urls.allowed_hosts``."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

import httpx2

from adapters.web.guard import AnswerTooLarge, GuardedTransport, HostRefused
from adapters.web.tls import context_for
from gateway.errors import InvalidRequest
from gateway.ports import FetchedPage
from gateway.settings import UrlSettings
from gateway.urls import UrlPolicy

__all__ = ["HttpFetcher"]

MOST_REDIRECTS = 3
MOST_BYTES = 512 * 1024 * 1024
"""Of any file, whatever is asked for."""
CONCURRENCY = 32
_REDIRECTS = (301, 302, 303, 307, 308)


class HttpFetcher:
    """Fulfils ``WebFetcher``. Each redirect's goal is checked like the URL itself."""

    def __init__(self, settings: UrlSettings) -> None:
        self._settings = settings
        self._policy = UrlPolicy(settings.allowed_hosts, "urls.allowed_hosts")
        self._client: httpx2.AsyncClient | None = None
        self._places = asyncio.Semaphore(CONCURRENCY)

    async def fetch(self, url: str, *, max_bytes: int, param: str) -> FetchedPage:
        self._policy.check(url, param)
        try:
            async with asyncio.timeout(self._settings.timeout_seconds), self._places:
                return await self._fetch(url, max_bytes, param)
        except TimeoutError:
            seconds = self._settings.timeout_seconds
            raise _failed(param, f"it was not read within {seconds:g} seconds") from None
        except HostRefused as error:
            raise _failed(param, str(error)) from None
        except (httpx2.TransportError, httpx2.StreamError, httpx2.InvalidURL) as error:
            raise _failed(param, str(error).rstrip(".")) from None

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def _fetch(self, url: str, max_bytes: int, param: str) -> FetchedPage:
        client = self._client_of(param)
        for _ in range(MOST_REDIRECTS + 1):
            async with client.stream("GET", url) as response:
                location = response.headers.get("location")
                if response.status_code in _REDIRECTS and location is not None:
                    url = str(response.url.join(location))
                    self._policy.check(url, param)
                    continue
                if response.status_code != 200:
                    raise _failed(param, f"its server answered with {response.status_code}")
                return FetchedPage(
                    data=await _read(response, max_bytes),
                    media_type=_media_type(response),
                    filename=_filename(url),
                )
        raise _failed(param, f"its server redirects more than {MOST_REDIRECTS} times")

    def _client_of(self, param: str) -> httpx2.AsyncClient:
        if self._client is None:
            try:
                context = context_for(self._settings.ca_file)
            except (OSError, ssl.SSLError):
                raise _failed(param, "the gateway's 'urls.ca_file' can't be used") from None
            self._client = httpx2.AsyncClient(
                transport=GuardedTransport(self._policy.admits, context, max_bytes=MOST_BYTES),
                timeout=self._settings.timeout_seconds,
                trust_env=False,
                headers={"user-agent": "understudy", "accept": "*/*"},
            )
        return self._client


async def _read(response: httpx2.Response, max_bytes: int) -> bytes:
    length = response.headers.get("content-length", "")
    if length.isdigit() and int(length) > max_bytes:
        raise AnswerTooLarge(f"it is larger than {max_bytes} bytes")
    data = bytearray()
    async for block in response.aiter_raw():
        data += block
        if len(data) > max_bytes:
            raise AnswerTooLarge(f"it is larger than {max_bytes} bytes")
    return bytes(data)


def _media_type(response: httpx2.Response) -> str:
    essence: str = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    return essence or "application/octet-stream"


def _filename(url: str) -> str:
    """The last part of the path, which is harmless as a name."""
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    kept = "".join(one for one in name if one.isprintable() and one not in '/\\"')
    return kept[:200] or "file"


def _failed(param: str, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"Invalid '{param}': the URL can't be read, {why}.", param=param, code="url_not_readable"
    )
