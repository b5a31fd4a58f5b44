"""What an InferenceService says of the model that it serves and of how to reach it."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast, get_args
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct, field

from adapters.kubernetes.cluster import SERVICE_ACCOUNT
from adapters.kubernetes.watch import Listed, Metadata
from gateway.settings import BackendSettings, KServeSettings, ModelKind

__all__ = ["PATH", "Served", "served_by"]

logger = logging.getLogger(__name__)

PATH = "/apis/serving.kserve.io/v1beta1/namespaces/{namespace}/inferenceservices"

_RAW_MODES = frozenset({"RawDeployment", "Standard"})
"""Without Knative; the second is KServe's newer name."""
_AUTH = "security.opendatahub.io/enable-auth"
_MODE = "serving.kserve.io/deploymentMode"
_SERVED_NAME = "--served-model-name"
_ITS_NAME = re.compile(r"\{\{\s*\.Name\s*\}\}")
_INSIDE = re.compile(r"\.svc(\.[\w.-]+)?$")


class Served(Struct, frozen=True, kw_only=True):
    """One InferenceService that is ready: the model that it is a backend of."""

    service: str
    """``namespace/name``"""
    model: str
    backend: BackendSettings
    aliases: tuple[str, ...] = ()
    kind: ModelKind | None = None


class _Condition(Struct, frozen=True):
    type: str = ""
    status: str = ""


class _Address(Struct, frozen=True):
    url: str | None = None


class _ServiceStatus(Struct, frozen=True, rename="camel"):
    url: str | None = None
    address: _Address | None = None
    conditions: list[_Condition] = field(default_factory=list)
    deployment_mode: str | None = None


class _Container(Struct, frozen=True):
    args: list[str] | None = None
    command: list[str] | None = None


class _Predictor(Struct, frozen=True):
    model: _Container | None = None
    containers: list[_Container] | None = None


class _Spec(Struct, frozen=True):
    predictor: _Predictor = field(default_factory=_Predictor)


class _InferenceService(Struct, frozen=True):
    spec: _Spec = field(default_factory=_Spec)
    status: _ServiceStatus = field(default_factory=_ServiceStatus)


def served_by(
    one: Listed, settings: KServeSettings, *, folder: Path = SERVICE_ACCOUNT
) -> Served | None:
    """The backend that it is; ``None`` while it isn't ready or can't be reached.

    What its annotations say wrongly is logged and left out.
    """
    metadata = one.metadata
    try:
        service = msgspec.json.decode(one.raw, type=_InferenceService)
    except msgspec.ValidationError as error:
        logger.warning("%s: an InferenceService of another shape: %s", _name(metadata), error)
        return None
    if metadata.deletion_timestamp is not None or not _is_ready(service.status):
        return None
    raw = (service.status.deployment_mode or metadata.annotations.get(_MODE)) in _RAW_MODES
    url = _url(metadata, service.status, settings, raw=raw)
    if url is None:
        return None
    said = _Said(metadata, settings.prefix)
    inside = _INSIDE.search(urlsplit(url).hostname or "") is not None
    return Served(
        service=_name(metadata),
        model=said.text("model") or metadata.name,
        aliases=tuple(one.strip() for one in said.text("aliases").split(",") if one.strip()),
        kind=said.kind(),
        backend=BackendSettings(
            url=url,
            model=said.text("served-model") or _served_name(metadata, service),
            weight=said.number("weight", 1, least=1),
            priority=said.number("priority", 0, least=0),
            resolve=settings.resolve and raw and inside,
            api_key_file=_token_file(metadata, settings, folder),
            ca_file=_ca_file(url, settings, folder) if inside else settings.services_ca_file,
        ),
    )


class _Said:
    """Its annotations with our prefix; a label of that name where there is no annotation."""

    def __init__(self, metadata: Metadata, prefix: str) -> None:
        self._service = _name(metadata)
        self._values = {**metadata.labels, **metadata.annotations}
        self._prefix = prefix

    def text(self, key: str) -> str:
        return self._values.get(f"{self._prefix}/{key}", "").strip()

    def number(self, key: str, default: int, *, least: int) -> int:
        text = self.text(key)
        if not text:
            return default
        if not text.isdecimal() or int(text) < least:
            self._wrong(key, text, f"a whole number from {least} on")
            return default
        return int(text)

    def kind(self) -> ModelKind | None:
        text = self.text("kind")
        if text and text not in get_args(ModelKind):
            self._wrong("kind", text, " or ".join(get_args(ModelKind)))
            return None
        return cast("ModelKind", text) if text else None

    def _wrong(self, key: str, text: str, expected: str) -> None:
        logger.warning(
            "%s: %s/%s is %r, expected %s", self._service, self._prefix, key, text[:100], expected
        )


def _is_ready(status: _ServiceStatus) -> bool:
    return any(one.type == "Ready" and one.status == "True" for one in status.conditions)


def _url(
    metadata: Metadata, status: _ServiceStatus, settings: KServeSettings, *, raw: bool
) -> str | None:
    """From inside the cluster if it can be."""
    inside = status.address.url if status.address is not None else None
    if inside is None and raw:
        inside = f"http://{metadata.name}-predictor.{metadata.namespace}.svc"
    url = (inside or status.url or "").rstrip("/")
    try:
        split = urlsplit(url)
        port = split.port
    except ValueError:
        return None
    if split.scheme not in ("http", "https") or not split.hostname or "@" in split.netloc:
        return None
    if raw and port is None and split.scheme == "http" and _INSIDE.search(split.hostname):
        # A headless service has the ports of its pods, and KServe's address may leave them out.
        return f"http://{split.hostname}:{settings.port}{split.path}"
    return url


def _served_name(metadata: Metadata, service: _InferenceService) -> str:
    """What vLLM is told to call the model; KServe's runtimes use the InferenceService's name."""
    predictor = service.spec.predictor
    containers = [one for one in (predictor.model, *(predictor.containers or ())) if one]
    for container in containers:
        name = _argument([*(container.command or ()), *(container.args or ())])
        if name:
            return _ITS_NAME.sub(metadata.name, name)
    return metadata.name


def _argument(words: Sequence[Any]) -> str | None:
    for index, word in enumerate(words):
        if word.startswith(f"{_SERVED_NAME}="):
            return str(word.partition("=")[2])
        if word == _SERVED_NAME and index + 1 < len(words):
            return str(words[index + 1])
    return None


def _token_file(metadata: Metadata, settings: KServeSettings, folder: Path) -> str | None:
    """Only for those that say so: a token is nothing to hand out."""
    values = {**metadata.labels, **metadata.annotations}
    if values.get(_AUTH, "").lower() != "true":
        return None
    return settings.services_token_file or str(folder / "token")


def _ca_file(url: str, settings: KServeSettings, folder: Path) -> str | None:
    if not url.startswith("https://"):
        return None
    if settings.services_ca_file is not None:
        return settings.services_ca_file
    services = folder / "service-ca.crt"
    return str(services) if services.is_file() else None


def _name(metadata: Metadata) -> str:
    return f"{metadata.namespace}/{metadata.name}"
