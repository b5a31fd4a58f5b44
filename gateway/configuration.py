"""Reading the settings: the defaults, a YAML file, the environment.

Later ones win::

    understudy serve --config understudy.yaml
    UNDERSTUDY_SERVER__PORT=9000 understudy serve --vllm http://vllm:8000

Inside the file ``${NAME}`` reads the environment and ``${NAME:-default}`` has a default.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import yaml
from msgspec import Struct

from gateway.settings import (
    BackendSettings,
    DocumentSettings,
    KServeSettings,
    LimitSettings,
    ModerationSettings,
    ObjectSettings,
    Settings,
    SettingsError,
    ToolSettings,
    VectorSettings,
    WebSearchSettings,
    backend_of,
    is_header_value,
)
from gateway.settings.identity_checks import check_forwarding, check_identity
from gateway.settings.limits import LIMITS
from gateway.urls import is_allowed_entry

__all__ = ["load_settings"]

ENVIRONMENT_PREFIX = "UNDERSTUDY_"
_NEVER_FORWARDED = frozenset(
    {
        *("connection", "content-encoding", "content-length", "content-type", "expect", "host"),
        *("keep-alive", "proxy-authenticate", "te", "trailer", "transfer-encoding", "upgrade"),
        *("traceparent", "tracestate", "x-request-id"),
    }
)
"""What frames a message, or is the gateway's own to say."""

AFFINITIES = ("prompt_cache_key", "user", "prefix")
_HEADER_AFFINITY = re.compile(r"header:[A-Za-z0-9!#$%&'*+.^_`|~-]+")
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
    backends: list[tuple[str, BackendSettings]] = []
    for index, model in enumerate(settings.models):
        for name in [model.id, *model.aliases]:
            if name in names:
                raise SettingsError(f"models.{index}: the name {name!r} is given twice")
            names.add(name)
        for position, backend in enumerate(model.backends):
            backends.append((f"models.{index}.backends.{position}", backend))
        _check_affinity(f"models.{index}.routing", model.routing.affinity or ())
    _check_affinity("routing", settings.routing.affinity)
    for index, entry in enumerate(settings.discover):
        backends.append((f"discover.{index}", backend_of(entry)))
    for path, backend in backends:
        _check_backend(path, backend)
    check_identity(settings.identity)
    check_forwarding(settings.identity, backends)
    if settings.server.management_port == settings.server.port:
        raise SettingsError("server.management_port: must differ from server.port")
    _check_kserve(settings.kserve)
    _check_limits(settings.limits)
    _check_database(settings.database.url)
    _check_objects(settings.objects)
    _check_documents(settings.documents)
    _check_vectors(settings.vectors)
    _check_moderation(settings.moderation)
    _check_files("database", settings.database, "ca_file")
    _check_files("objects", settings.objects, "ca_file")
    _check_files("vectors", settings.vectors, "ca_file", "client_cert", "client_key")
    _check_files("documents", settings.documents, "ca_file")
    _check_tools(settings.tools)
    _check_hosts("urls", settings.urls.allowed_hosts)
    _check_files("urls", settings.urls, "ca_file")
    _check_web_search(settings.web_search)


def _check_affinity(path: str, affinity: tuple[str, ...]) -> None:
    for kind in affinity:
        if kind not in AFFINITIES and not _HEADER_AFFINITY.fullmatch(kind):
            raise SettingsError(
                f"{path}.affinity: expected {', '.join(AFFINITIES)} or header:NAME, not {kind!r}"
            )


def _check_kserve(kserve: KServeSettings) -> None:
    if not kserve.enabled:
        return
    server = kserve.api_server
    if server is not None and not _is_server_url(server):
        raise SettingsError("kserve.api_server: expected https://host:port")
    if server is not None and urlsplit(server).scheme == "http":
        host = urlsplit(server).hostname
        if host not in ("127.0.0.1", "::1", "localhost"):  # of kubectl proxy
            raise SettingsError("kserve.api_server: expected https: the gateway's token goes there")
    _check_files("kserve", kserve, "ca_file", "token_file", "services_ca_file")
    _check_files("kserve", kserve, "services_token_file")


def _check_database(url: str | None) -> None:
    drivers = ("sqlite+aiosqlite:", "postgresql+asyncpg:")
    if url is not None and not url.startswith(drivers):
        raise SettingsError(
            "database.url: expected sqlite+aiosqlite:///FILE or postgresql+asyncpg://…"
        )


def _check_limits(limits: LimitSettings) -> None:
    if limits.store not in ("database", "memory") and not limits.store.startswith(
        ("redis://", "rediss://")
    ):
        raise SettingsError("limits.store: expected database, memory, redis://… or rediss://…")
    seen: set[tuple[str | None, str | None, str | None]] = set()
    for index, rule in enumerate(limits.rules):
        path = f"limits.rules.{index}"
        chosen = (rule.project, rule.key, rule.model)
        if chosen in seen:
            raise SettingsError(f"{path}: the same project, key and model as an earlier rule")
        seen.add(chosen)
        if all(getattr(rule, name) is None for name in LIMITS):
            raise SettingsError(f"{path}: limits nothing; give one of {', '.join(LIMITS)}")
    projects = [quota.project for quota in limits.quotas]
    for index, project in enumerate(projects):
        if project in projects[:index]:
            raise SettingsError(f"limits.quotas.{index}.project: {project!r} is given twice")


def _check_objects(objects: ObjectSettings) -> None:
    if objects.kind != "minio":
        return
    for key in ("endpoint", "access_key", "secret_key"):
        if getattr(objects, key) is None:
            raise SettingsError(f"objects.{key}: needed for kind minio")
    if "/" in (objects.endpoint or ""):
        raise SettingsError("objects.endpoint: expected host:port; TLS is asked for by `secure`")


def _check_vectors(vectors: VectorSettings) -> None:
    uri = vectors.uri
    if uri is not None and "://" in uri and not _is_server_url(uri):
        raise SettingsError("vectors.uri: expected http://host:port, https://… or a folder")
    if uri is not None and "://" not in uri and re.fullmatch(r"[\w.-]+:\d+", uri):
        raise SettingsError(f"vectors.uri: is this a server? Then write http://{uri}")
    if (vectors.client_cert is None) != (vectors.client_key is None):
        raise SettingsError("vectors: client_cert and client_key go together")
    if vectors.client_cert is not None and vectors.ca_file is None:
        raise SettingsError("vectors.ca_file: needed with client_cert")


def _check_documents(documents: DocumentSettings) -> None:
    if documents.converter == "docling-serve" and not _is_server_url(documents.url or ""):
        raise SettingsError("documents.url: docling-serve needs http://host:port or https://…")


def _check_moderation(moderation: ModerationSettings) -> None:
    names = {model.model for model in moderation.models}
    if len(names) < len(moderation.models):
        raise SettingsError("moderation.models: a model is given twice")
    for index, detector in enumerate(moderation.detectors):
        path = f"moderation.detectors.{index}"
        if detector.name in names or not detector.name:
            raise SettingsError(f"{path}.name: needs a name of its own, not {detector.name!r}")
        names.add(detector.name)
        if not is_header_value(detector.detector_id or detector.name):
            raise SettingsError(f"{path}: an HTTP header can't carry the detector's id")
        _check_backend(path, detector.backend())


def _check_tools(tools: ToolSettings) -> None:
    _check_hosts("tools", tools.allowed_hosts)
    _check_files("tools", tools, "ca_file")
    ids: set[str] = set()
    for index, connector in enumerate(tools.connectors):
        path = f"tools.connectors.{index}"
        if connector.id in ids:
            raise SettingsError(f"{path}: the id {connector.id!r} is given twice")
        ids.add(connector.id)
        if not _is_server_url(connector.url):
            raise SettingsError(
                f"{path}.url: expected http://host/path or https://…, without user and password"
            )
        if connector.authorization is not None and connector.authorization_file is not None:
            raise SettingsError(f"{path}: give authorization or authorization_file, not both")
        for name, value in connector.headers.items():
            if not is_header_value(value) or not is_header_value(name):
                raise SettingsError(
                    f"{path}.headers: {name!r} holds a character that no HTTP header can carry"
                )
        if connector.authorization is not None and not is_header_value(connector.authorization):
            raise SettingsError(
                f"{path}.authorization: holds a character that no HTTP header can carry"
            )
        _check_files(path, connector, "ca_file", "authorization_file")


def _check_hosts(section: str, entries: list[str]) -> None:
    for entry in entries:
        if not is_allowed_entry(entry):
            raise SettingsError(
                f"{section}.allowed_hosts: {entry!r} is no host, no *.domain and not *"
            )


def _check_web_search(search: WebSearchSettings) -> None:
    if search.kind == "none":
        return
    if search.url is not None and not _is_server_url(search.url):
        raise SettingsError("web_search.url: expected http://host:port or https://…")
    if search.kind == "searxng" and search.url is None:
        raise SettingsError("web_search.url: needed for kind searxng")
    given = (search.api_key, search.api_key_file)
    if None not in given:
        raise SettingsError("web_search: give api_key or api_key_file, not both")
    if search.kind != "searxng" and given == (None, None):
        raise SettingsError(f"web_search.api_key: needed for kind {search.kind}")
    if search.api_key is not None and not is_header_value(search.api_key):
        raise SettingsError("web_search.api_key: holds a character that no HTTP header can carry")
    _check_files("web_search", search, "ca_file", "api_key_file")


def _check_files(section: str, settings: Struct, *keys: str) -> None:
    for key in keys:
        file = getattr(settings, key)
        if file is not None and not Path(file).is_file():
            raise SettingsError(f"{section}.{key}: no such file: {file}")


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
    if backend.address is not None and backend.resolve:
        raise SettingsError(f"{path}: give address or resolve, not both")
    if (backend.client_cert is None) != (backend.client_key is None):
        raise SettingsError(f"{path}: client_cert and client_key go together")
    for name in backend.forward_headers:
        if name.lower() in _NEVER_FORWARDED:
            raise SettingsError(f"{path}.forward_headers: {name} belongs to one connection only")
    _check_files(path, backend, "ca_file", "client_cert", "client_key", "api_key_file")


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
