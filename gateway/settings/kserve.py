"""Models that KServe runs, found by asking Kubernetes."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, field

from gateway.settings.section import Port, PositiveFloat, Section

Namespace = Annotated[str, Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]


class KServeSettings(Section, frozen=True):
    """Which InferenceServices become models.

    ``KServeSettings(enabled=True, namespaces=["models"], label_selector="understudy.dev/serve")``
    """

    enabled: bool = False
    namespaces: list[Namespace] = field(default_factory=list)
    """The pod's own when left out. Each needs a Role that allows get, list and watch."""
    label_selector: str | None = None
    """Only those with such labels: ``understudy.dev/serve=true,tier!=test``."""
    prefix: str = "understudy.dev"
    """Of the annotations and labels ``PREFIX/model``, ``/served-model``, ``/weight``,
    ``/priority``, ``/aliases`` and ``/kind``."""
    port: Port = 8080
    """Of the model servers themselves, where a service without an address of its own (headless)
    names none."""
    resolve: bool = True
    """Whether such a service's pods are backends each, instead of whichever is connected to."""
    services_token_file: str | None = None
    """The bearer token for services that want one; the service account's when left out."""
    services_ca_file: str | None = None
    """The authority of the services' certificates; OpenShift's for services where it is there."""
    api_server: str | None = None
    """The API server's URL; the pod's own cluster when left out."""
    token_file: str | None = None
    """The service account's token; the one mounted into the pod when left out."""
    ca_file: str | None = None
    """The API server's authority; the one mounted into the pod when left out."""
    resync_seconds: PositiveFloat = 300.0
    """How often everything is listed anew, beside being told of changes."""
