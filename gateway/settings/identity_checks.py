"""What is wrong with settings of identity that types can't say."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit

from gateway.settings.identity import (
    IdentitySettings,
    KubernetesSettings,
    OidcSettings,
    UpstreamHeaderSettings,
)
from gateway.settings.models import BackendSettings
from gateway.settings.section import SettingsError
from gateway.settings.server import ServerSettings

__all__ = ["check_anonymous", "check_forwarding", "check_identity"]

_CREDENTIALS = frozenset({"authorization", "proxy-authorization", "x-api-key"})


def check_identity(identity: IdentitySettings) -> None:
    """Raises ``SettingsError`` for what the chosen mode can't work with."""
    match identity.mode:
        case "oidc":
            _check_oidc(identity.oidc)
        case "kubernetes":
            _check_kubernetes(identity.kubernetes)
        case "upstream_header":
            _check_upstream_header(identity.upstream_header)
        case _:
            pass


def check_anonymous(identity: IdentitySettings, server: ServerSettings) -> None:
    """Raises ``SettingsError`` where everybody in the network could do everything by mistake."""
    if identity.mode != "none" or identity.allow_anonymous or _is_loopback(server.host):
        return
    raise SettingsError(
        f"server.host: {server.host} is reached from other machines, and identity.mode is none: "
        "whoever reaches it could read and delete everything. Set identity.mode (api_keys is the "
        "simplest: docs/identity.md), or listen on 127.0.0.1, or, where something in front keeps "
        "strangers out, set identity.allow_anonymous: true or give --allow-anonymous."
    )


def check_forwarding(
    identity: IdentitySettings, backends: Iterable[tuple[str, BackendSettings]]
) -> None:
    """Raises ``SettingsError`` where a proof of identity would travel on to a model server."""
    if identity.mode == "none":
        return
    kept = set(_CREDENTIALS)
    if identity.mode == "upstream_header":
        headers = identity.upstream_header
        kept |= {headers.user_header, headers.project_header, headers.scopes_header}
    kept = {name.lower() for name in kept}
    for path, backend in backends:
        for name in backend.forward_headers:
            if name.lower() in kept:
                raise SettingsError(
                    f"{path}.forward_headers: {name} proves who calls the gateway, and goes no "
                    "further where identity.mode is set. Give the server a token of its own: "
                    "api_key or api_key_file."
                )


def _check_oidc(oidc: OidcSettings) -> None:
    if oidc.issuer is None:
        raise SettingsError("identity.oidc.issuer: needed for mode oidc")
    _check_url("identity.oidc.issuer", oidc.issuer)
    if oidc.jwks_url is not None:
        _check_url("identity.oidc.jwks_url", oidc.jwks_url)
    if not oidc.audience:
        raise SettingsError(
            "identity.oidc.audience: needed for mode oidc; without it, a token that was meant for "
            "any other application would do"
        )
    if not oidc.algorithms:
        raise SettingsError("identity.oidc.algorithms: give at least one")
    if not 0 <= oidc.leeway_seconds <= 600:
        raise SettingsError("identity.oidc.leeway_seconds: from 0 to 600")
    if oidc.project_claim is None and oidc.default_project is None:
        raise SettingsError(
            "identity.oidc: give project_claim or default_project; else no caller has a project"
        )
    _check_file("identity.oidc.ca_file", oidc.ca_file)


def _check_kubernetes(kubernetes: KubernetesSettings) -> None:
    _check_url("identity.kubernetes.api_url", kubernetes.api_url)
    _check_file("identity.kubernetes.token_file", kubernetes.token_file)
    _check_file("identity.kubernetes.ca_file", kubernetes.ca_file)


def _check_upstream_header(headers: UpstreamHeaderSettings) -> None:
    path = "identity.upstream_header"
    if not headers.trusted:
        raise SettingsError(f"{path}.trusted: needed for mode upstream_header: the proxy's CIDRs")
    for given in headers.trusted:
        try:
            network = ip_network(given)
        except ValueError as error:
            raise SettingsError(f"{path}.trusted: {error}") from None
        if network.prefixlen == 0:
            raise SettingsError(f"{path}.trusted: {given} is everybody")
    names = [headers.user_header, headers.project_header, headers.scopes_header]
    if len({name.lower() for name in names}) < len(names):
        raise SettingsError(f"{path}: user, project and scopes need headers of their own")
    for name in names:
        if not name or not name.isascii() or not name.replace("-", "").isalnum():
            raise SettingsError(f"{path}: {name!r} is no name of a header")


def _check_url(path: str, text: str) -> None:
    try:
        url = urlsplit(text)
        _ = url.port  # raises for what is no port
    except ValueError:
        url = urlsplit("")
    if url.scheme not in ("http", "https") or not url.hostname or "@" in url.netloc:
        raise SettingsError(f"{path}: expected https://host, without user and password")
    if url.scheme == "http" and not _is_loopback(url.hostname):
        raise SettingsError(f"{path}: expected https: whoever answers decides who is let in")


def _check_file(path: str, file: str | None) -> None:
    if file is not None and not Path(file).is_file():
        raise SettingsError(f"{path}: no such file: {file}")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
