"""Models and the servers that run them."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, field

from gateway.settings.routing import ModelRoutingSettings
from gateway.settings.section import ModelKind, PositiveFloat, PositiveInt, Section


class TimeoutSettings(Section, frozen=True):
    """Four limits on a call to a model server, in seconds.

    ``TimeoutSettings(connect=2, first_byte=120)``
    """

    connect: PositiveFloat = 5.0
    first_byte: PositiveFloat = 600.0
    """From the request until the first event of a stream, or the head of a plain answer."""
    idle: PositiveFloat = 120.0
    """The longest silence after that."""
    total: PositiveFloat = 3600.0


class BackendTimeoutSettings(Section, frozen=True):
    """The limits of one model server where they differ from those of ``timeouts``."""

    connect: PositiveFloat | None = None
    first_byte: PositiveFloat | None = None
    idle: PositiveFloat | None = None
    total: PositiveFloat | None = None

    def over(self, general: TimeoutSettings) -> TimeoutSettings:
        """These limits, and the general ones where none is given here."""
        return TimeoutSettings(
            connect=self.connect or general.connect,
            first_byte=self.first_byte or general.first_byte,
            idle=self.idle or general.idle,
            total=self.total or general.total,
        )


class BackendSettings(Section, frozen=True):
    """One model server, and how to reach it.

    ``BackendSettings(url="https://vllm/v1", ca_file="/etc/ca.pem", api_key_file="/run/token")``
    """

    url: str
    model: str | None = None
    """The name the server itself uses, where it differs from the model's id."""
    weight: PositiveInt = 1
    priority: Annotated[int, Meta(ge=0)] = 0
    """Backends of the lowest number are used; the next number only when none of those works."""
    address: str | None = None
    """Where to connect to, in place of what the URL's host resolves to."""
    resolve: bool = False
    """Whether each address of the URL's host is a backend by itself (a headless service)."""
    api_key: str | None = None
    api_key_file: str | None = None
    """A file with the bearer token, read again when it changes (a mounted Secret)."""
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    forward_headers: tuple[str, ...] = ()
    """More request headers that may travel to this server, e.g. ``[authorization]``."""
    timeouts: BackendTimeoutSettings = field(default_factory=BackendTimeoutSettings)


class ModelSettings(Section, frozen=True):
    """A model under the name that clients use.

    ``ModelSettings(id="granite", aliases=["gpt-4o"], backends=[BackendSettings(url=…)])``
    """

    id: str
    backends: Annotated[list[BackendSettings], Meta(min_length=1)]
    aliases: list[str] = field(default_factory=list)
    kind: ModelKind | None = None
    """Found out from the server when left out."""
    routing: ModelRoutingSettings = field(default_factory=ModelRoutingSettings)


class EmbeddingSettings(Section, frozen=True):
    """How chunks and queries become vectors."""

    default_model: str | None = None
    """Where a store names none; the only embedding model there is when left out."""
    batch_size: PositiveInt = 64
    """Chunks in one request to the embedding model."""
    concurrency: PositiveInt = 4
    """Requests to the embedding model at once, for each process: so many of queries and so many of
    files."""


def backend_of(entry: str | BackendSettings) -> BackendSettings:
    """A discovered server given as a bare URL or with its settings."""
    return BackendSettings(url=entry) if isinstance(entry, str) else entry
