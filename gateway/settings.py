"""Every setting, one class per concern.

Settings come from three places, later ones win: the defaults below, a YAML file, and the
environment::

    understudy serve --config understudy.yaml
    UNDERSTUDY_SERVER__PORT=9000 understudy serve --vllm http://vllm:8000

Inside the file ``${NAME}`` reads the environment and ``${NAME:-default}`` has a default.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
import yaml
from msgspec import Meta, Struct, field

ModelKind = Literal["chat", "embedding", "rerank", "moderation"]
Port = Annotated[int, Meta(ge=1, le=65535)]
PositiveInt = Annotated[int, Meta(gt=0)]
PositiveFloat = Annotated[float, Meta(gt=0)]


class SettingsError(ValueError):
    """A setting is wrong. The message names it as ``section.key``."""


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the configuration; a misspelt key is an error, not a silent default."""


class ServerSettings(Section, frozen=True):
    """Where the gateway listens.

    ``ServerSettings(host="0.0.0.0", management_port=9090)`` keeps /livez, /readyz and /metrics
    off the public port.
    """

    host: str = "127.0.0.1"
    port: Port = 8321
    workers: PositiveInt = 1
    management_port: Port | None = None
    profile: Literal["openai", "llamastack"] = "openai"
    heartbeat_seconds: PositiveFloat = 15.0
    """A silent stream gets an SSE comment this often, so that proxies keep it open."""
    shutdown_grace_seconds: PositiveInt = 30
    """How long running requests may take to end after SIGTERM."""


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


class LimitSettings(Section, frozen=True):
    """Bounds on what is taken in and kept."""

    max_body_bytes: PositiveInt = 64 * 1024 * 1024
    max_answer_bytes: PositiveInt = 256 * 1024 * 1024
    """The largest answer of a model server that is not a stream."""
    max_upstream_connections: PositiveInt = 4096
    """For each model server; past it callers get 503 with retry-after."""


class TelemetrySettings(Section, frozen=True):
    """What is observed. Exporters are set by the standard ``OTEL_*`` variables."""

    service_name: str = "understudy"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "text"] = "json"
    access_log: bool = False
    """One log line for each request; failures of a model server are logged in any case."""


class Settings(Section, frozen=True):
    """All of it. ``load_settings`` makes one."""

    server: ServerSettings = field(default_factory=ServerSettings)
    models: list[ModelSettings] = field(default_factory=list)
    discover: list[str | BackendSettings] = field(default_factory=list)
    """Model servers whose models are found by asking ``/v1/models``."""
    discover_interval_seconds: PositiveFloat = 10.0
    timeouts: TimeoutSettings = field(default_factory=TimeoutSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)
    data_dir: str = "./understudy-data"
    """The only folder that the gateway writes to."""


ENVIRONMENT_PREFIX = "UNDERSTUDY_"
_NEVER_FORWARDED = frozenset(
    {
        *("connection", "content-encoding", "content-length", "content-type", "expect", "host"),
        *("keep-alive", "proxy-authenticate", "te", "trailer", "transfer-encoding", "upgrade"),
        *("traceparent", "tracestate", "x-request-id"),
    }
)
"""What frames a message, or is the gateway's own to say."""

_PLACEHOLDER = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_MSGSPEC_PATH = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<path>.*)`)?$", re.DOTALL)


def load_settings(
    config: Path | None = None, environment: Mapping[str, str] | None = None
) -> Settings:
    """Read the file and the environment.

    Raises :class:`SettingsError` that names the file, the variable or the key at fault.
    """
    env = os.environ if environment is None else environment
    values = _read_file(config, env) if config else {}
    _apply_environment(values, env)
    try:
        settings = msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(_explain(error)) from None
    _check(settings)
    return settings


def backend_of(entry: str | BackendSettings) -> BackendSettings:
    """A discovered server given as a bare URL or with its settings."""
    return BackendSettings(url=entry) if isinstance(entry, str) else entry


def is_header_value(text: str) -> bool:
    """Whether an HTTP header can carry this text."""
    return text.isascii() and text.isprintable()


def _read_file(config: Path, env: Mapping[str, str]) -> dict[str, Any]:
    try:
        loaded = yaml.safe_load(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{config}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{config}: not valid YAML: {error}") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise SettingsError(f"{config}: expected sections such as `server:` at the top level")
    expanded: dict[str, Any] = _expand(loaded, env, "")
    return expanded


def _expand(value: Any, env: Mapping[str, str], path: str) -> Any:
    """Put the environment's values where the file says ``${NAME}``."""
    if isinstance(value, dict):
        return {key: _expand(item, env, f"{path}{key}.") for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, env, f"{path}{index}.") for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        name, default = match.groups()
        found = env.get(name, default)
        if found is None:
            raise SettingsError(f"{path.rstrip('.')}: the variable {name} is not set")
        return found

    return _PLACEHOLDER.sub(replace, value)


def _apply_environment(values: dict[str, Any], env: Mapping[str, str]) -> None:
    """``UNDERSTUDY_SERVER__PORT=9000`` sets ``server.port``; lists and mappings are YAML."""
    top_level = {name.upper() for name in Settings.__struct_fields__}
    for name, text in env.items():
        if not name.startswith(ENVIRONMENT_PREFIX):
            continue
        *sections, key = name.removeprefix(ENVIRONMENT_PREFIX).split("__")
        if not sections and key not in top_level:
            continue  # another tool's variable that shares the prefix
        target = values
        for section in sections:
            target = target.setdefault(section.lower(), {})
            if not isinstance(target, dict):
                raise SettingsError(f"{name}: {section.lower()} is not a section")
        try:
            target[key.lower()] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise SettingsError(f"{name}: not valid YAML: {error}") from error


def _check(settings: Settings) -> None:
    """What types can't say."""
    names: set[str] = set()
    for index, model in enumerate(settings.models):
        for name in [model.id, *model.aliases]:
            if name in names:
                raise SettingsError(f"models.{index}: the name {name!r} is given twice")
            names.add(name)
        for position, backend in enumerate(model.backends):
            _check_backend(f"models.{index}.backends.{position}", backend)
    for index, entry in enumerate(settings.discover):
        _check_backend(f"discover.{index}", backend_of(entry))
    if settings.server.management_port == settings.server.port:
        raise SettingsError("server.management_port: must differ from server.port")


def _check_backend(path: str, backend: BackendSettings) -> None:
    if not _is_server_url(backend.url):
        raise SettingsError(
            f"{path}.url: expected http://host:port/v1 or https://…, without user and password"
        )
    if backend.api_key is not None and backend.api_key_file is not None:
        raise SettingsError(f"{path}: give api_key or api_key_file, not both")
    if backend.api_key is not None and not is_header_value(backend.api_key):
        raise SettingsError(
            f"{path}.api_key: holds a character that no HTTP header can carry, maybe a line's end"
        )
    if (backend.client_cert is None) != (backend.client_key is None):
        raise SettingsError(f"{path}: client_cert and client_key go together")
    for name in backend.forward_headers:
        if name.lower() in _NEVER_FORWARDED:
            raise SettingsError(f"{path}.forward_headers: {name} belongs to one connection only")
    for key in ("ca_file", "client_cert", "client_key", "api_key_file"):
        file = getattr(backend, key)
        if file is not None and not Path(file).is_file():
            raise SettingsError(f"{path}.{key}: no such file: {file}")


def _is_server_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        _ = url.port  # raises for what is no port
    except ValueError:
        return False
    return url.scheme in ("http", "https") and bool(url.hostname) and "@" not in url.netloc


def _explain(error: msgspec.ValidationError) -> str:
    match = _MSGSPEC_PATH.match(str(error))
    if match is None or not match["path"]:
        return str(error)
    path = match["path"].replace("[...]", "").replace("[", ".").replace("]", "")
    return f"{path}: {match['what']}"
