"""TLS to a model server: one context for each server, private CA and client certificate in it."""

from __future__ import annotations

import ssl

from gateway.settings import BackendSettings, SettingsError


def context_for(backend: BackendSettings) -> ssl.SSLContext | None:
    """The context for an ``https`` URL, ``None`` for ``http``.

    Certificates are always verified: against the system's trust store, and against ``ca_file``
    as well where one is given. Raises ``SettingsError`` when a file can't be used.
    """
    if not backend.url.startswith("https://"):
        return None
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    try:
        if backend.ca_file:
            context.load_verify_locations(cafile=backend.ca_file)
        if backend.client_cert:
            context.load_cert_chain(backend.client_cert, backend.client_key)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"{backend.url}: the TLS files can't be used: {error}") from error
    return context
