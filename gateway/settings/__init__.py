"""Every setting, one class per concern.

``gateway.configuration`` reads them from a file and the environment.
"""

from __future__ import annotations

from msgspec import field

from gateway.settings.documents import DocumentSettings, IngestionSettings, SearchSettings
from gateway.settings.identity import (
    Algorithm,
    ApiKeySettings,
    IdentityMode,
    IdentitySettings,
    KubernetesSettings,
    OidcSettings,
    Scope,
    UpstreamHeaderSettings,
)
from gateway.settings.kserve import KServeSettings
from gateway.settings.models import (
    BackendSettings,
    BackendTimeoutSettings,
    EmbeddingSettings,
    ModelSettings,
    TimeoutSettings,
    backend_of,
)
from gateway.settings.responses import BatchSettings, ResponseSettings
from gateway.settings.routing import ModelRoutingSettings, RoutingSettings
from gateway.settings.safety import (
    DetectorSettings,
    GuardForm,
    GuardModelSettings,
    ModerationCategory,
    ModerationSettings,
)
from gateway.settings.section import (
    ModelKind,
    PositiveFloat,
    PositiveInt,
    Section,
    SettingsError,
    is_header_value,
)
from gateway.settings.server import LimitSettings, ServerSettings, TelemetrySettings
from gateway.settings.storage import (
    DatabaseSettings,
    ObjectSettings,
    RetentionSettings,
    VectorSettings,
)
from gateway.settings.tools import (
    ConnectorSettings,
    ToolSettings,
    UrlSettings,
    WebSearchSettings,
)

__all__ = [
    "Algorithm",
    "ApiKeySettings",
    "BackendSettings",
    "BackendTimeoutSettings",
    "BatchSettings",
    "ConnectorSettings",
    "DatabaseSettings",
    "DetectorSettings",
    "DocumentSettings",
    "EmbeddingSettings",
    "GuardForm",
    "GuardModelSettings",
    "IdentityMode",
    "IdentitySettings",
    "IngestionSettings",
    "KServeSettings",
    "KubernetesSettings",
    "LimitSettings",
    "ModelKind",
    "ModelRoutingSettings",
    "ModelSettings",
    "ModerationCategory",
    "ModerationSettings",
    "ObjectSettings",
    "OidcSettings",
    "PositiveFloat",
    "PositiveInt",
    "ResponseSettings",
    "RetentionSettings",
    "RoutingSettings",
    "Scope",
    "SearchSettings",
    "Section",
    "ServerSettings",
    "Settings",
    "SettingsError",
    "TelemetrySettings",
    "TimeoutSettings",
    "ToolSettings",
    "UpstreamHeaderSettings",
    "UrlSettings",
    "VectorSettings",
    "WebSearchSettings",
    "backend_of",
    "is_header_value",
]


class Settings(Section, frozen=True):
    """All of it. ``load_settings`` makes one."""

    server: ServerSettings = field(default_factory=ServerSettings)
    models: list[ModelSettings] = field(default_factory=list)
    discover: list[str | BackendSettings] = field(default_factory=list)
    """Model servers whose models are found by asking ``/v1/models``."""
    discover_interval_seconds: PositiveFloat = 10.0
    kserve: KServeSettings = field(default_factory=KServeSettings)
    routing: RoutingSettings = field(default_factory=RoutingSettings)
    timeouts: TimeoutSettings = field(default_factory=TimeoutSettings)
    identity: IdentitySettings = field(default_factory=IdentitySettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    database: DatabaseSettings = field(default_factory=DatabaseSettings)
    objects: ObjectSettings = field(default_factory=ObjectSettings)
    vectors: VectorSettings = field(default_factory=VectorSettings)
    documents: DocumentSettings = field(default_factory=DocumentSettings)
    embedding: EmbeddingSettings = field(default_factory=EmbeddingSettings)
    ingestion: IngestionSettings = field(default_factory=IngestionSettings)
    search: SearchSettings = field(default_factory=SearchSettings)
    responses: ResponseSettings = field(default_factory=ResponseSettings)
    batches: BatchSettings = field(default_factory=BatchSettings)
    moderation: ModerationSettings = field(default_factory=ModerationSettings)
    tools: ToolSettings = field(default_factory=ToolSettings)
    urls: UrlSettings = field(default_factory=UrlSettings)
    web_search: WebSearchSettings = field(default_factory=WebSearchSettings)
    retention: RetentionSettings = field(default_factory=RetentionSettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)
    data_dir: str = "./understudy-data"
    """The only folder that the gateway writes to."""
