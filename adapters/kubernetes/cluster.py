"""Where the API server is, who is trusted to be it, and who the gateway is to it."""

from __future__ import annotations

import os
import ssl
from collections.abc import Generator, Mapping
from pathlib import Path

import httpx

from adapters.vllm.credentials import Credentials
from gateway.settings import BackendSettings, SettingsError

__all__ = ["SERVICE_ACCOUNT", "Cluster", "namespace"]

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""What every pod finds there: ``token``, ``ca.crt``, ``namespace``, and on OpenShift
``service-ca.crt``, the authority of the certificates of services."""

_TIMEOUT = httpx.Timeout(15.0, connect=5.0)


class Cluster:
    """The way to one API server. It holds no connection; :meth:`client` makes what does.

    ``token_file`` is read again when it changes, as projected tokens do every hour.
    """

    def __init__(self, url: str, *, token_file: str | None, ca_file: str | None) -> None:
        self.url = url.rstrip("/")
        self.token_file = token_file
        self.ca_file = ca_file

    @classmethod
    def found(
        cls,
        *,
        url: str | None = None,
        token_file: str | None = None,
        ca_file: str | None = None,
        environment: Mapping[str, str] = os.environ,
        folder: Path = SERVICE_ACCOUNT,
    ) -> Cluster:
        """These, and what a pod is told where they are left out.

        Raises ``SettingsError`` where no address is given and this is no pod.
        """
        if url is None:
            host = environment.get("KUBERNETES_SERVICE_HOST")
            if not host:
                raise SettingsError(
                    "this process runs in no pod (KUBERNETES_SERVICE_HOST is not set): "
                    "give the API server's address"
                )
            port = environment.get("KUBERNETES_SERVICE_PORT_HTTPS") or "443"
            url = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        return cls(
            url,
            token_file=token_file or _if_there(folder / "token"),
            ca_file=ca_file or _if_there(folder / "ca.crt"),
        )

    def client(self, *, timeout: httpx.Timeout = _TIMEOUT) -> httpx.AsyncClient:
        """A client for paths of the API server; its maker closes it.

        Raises ``SettingsError`` where the authority's file can't be used.
        """
        return httpx.AsyncClient(
            base_url=self.url,
            auth=_Bearer(self.url, self.token_file),
            verify=self._context(),
            timeout=timeout,
            follow_redirects=False,
            trust_env=False,
            headers={"accept": "application/json"},
        )

    def _context(self) -> ssl.SSLContext:
        """The API server's own authority and no other, where it is known."""
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(
                f"the API server's authority can't be used: {self.ca_file}: {error}"
            ) from error


class _Bearer(httpx.Auth):
    """The token of now on every request."""

    def __init__(self, url: str, token_file: str | None) -> None:
        self._credentials = Credentials(BackendSettings(url=url, api_key_file=token_file))

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        name, _, value = self._credentials.header_line().strip().decode("ascii").partition(": ")
        if value:
            request.headers[name] = value
        yield request


def namespace(folder: Path = SERVICE_ACCOUNT) -> str | None:
    """The pod's own namespace; ``None`` outside of one."""
    try:
        return (folder / "namespace").read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _if_there(file: Path) -> str | None:
    return str(file) if file.is_file() else None
