"""Who may call, how that is proven, and what follows from it."""

from __future__ import annotations

from typing import Literal

from msgspec import field

from gateway.settings.section import PositiveFloat, PositiveInt, ProjectName, Section

Scope = Literal[
    "inference",
    "models.read",
    "files",
    "vector_stores",
    "responses",
    "batches",
    "tools",
    "usage.read",
    "admin",
]
"""What a caller may do; ``gateway.identity.scopes`` says which routes each one opens."""

IdentityMode = Literal["none", "api_keys", "oidc", "kubernetes", "upstream_header"]

Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]
"""Signatures with a public key. A shared secret (``HS256``) and ``none`` can't be asked for."""


class ApiKeySettings(Section, frozen=True):
    """Keys that ``understudy keys`` makes and the database knows by their digest."""

    cache_seconds: PositiveFloat = 10.0
    """How long a process goes by what it read of a key: so soon does revoking it take effect."""
    outage_seconds: PositiveFloat = 300.0
    """How long a key that was good goes on being so while the database can't be asked."""


class OidcSettings(Section, frozen=True):
    """Tokens (JWT) of an OpenID Connect issuer.

    ``OidcSettings(issuer="https://sso/realms/ai", audience=["understudy"], project_claim="team")``
    """

    issuer: str | None = None
    """As the tokens' ``iss`` says it; its discovery document is under it."""
    audience: list[str] = field(default_factory=list)
    """A token must be meant for one of these."""
    jwks_url: str | None = None
    """Where the issuer's keys are, where it has no discovery document."""
    ca_file: str | None = None
    algorithms: list[Algorithm] = field(
        default_factory=lambda: ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "ES512"]
    )
    leeway_seconds: float = 30.0
    """By how much the issuer's clock may be off."""
    keys_seconds: PositiveFloat = 600.0
    """How often the issuer's keys are fetched again."""
    refetch_seconds: PositiveFloat = 10.0
    """The shortest time between two fetches, whatever keys tokens name."""
    subject_claim: str = "sub"
    project_claim: str | None = None
    """The claim that names the project or projects, ``resource.team`` for one within another."""
    projects: dict[str, ProjectName] = field(default_factory=dict)
    """The claim's values and the projects that they stand for; values that aren't here stand for
    nothing. When empty, a value is itself the project."""
    default_project: ProjectName | None = None
    """Of tokens that name none; without it they are refused."""
    roles_claim: str | None = None
    roles: dict[str, list[Scope]] = field(default_factory=dict)
    """A role's scopes. Whoever has none of these roles has the scopes in ``default_scopes``."""
    default_scopes: list[Scope] | None = None
    """Every scope but ``admin`` when left out."""


class KubernetesSettings(Section, frozen=True):
    """Tokens of service accounts and users, which the cluster's API server reviews."""

    api_url: str = "https://kubernetes.default.svc"
    token_file: str = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105  (a path)
    """The pod's own token, which must be allowed to review others."""
    ca_file: str | None = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
    audiences: list[str] = field(default_factory=list)
    """What tokens must be meant for; the API server itself when empty."""
    namespaces: dict[str, ProjectName] = field(default_factory=dict)
    """Namespaces of service accounts and their projects. When empty, a namespace is a project of
    its own name; else service accounts of other namespaces are refused."""
    groups: dict[str, ProjectName] = field(default_factory=dict)
    """Groups and their projects, for users who are no service accounts."""
    roles: dict[str, list[Scope]] = field(default_factory=dict)
    """A group's scopes. Whoever is in none of them has the scopes in ``default_scopes``."""
    default_scopes: list[Scope] | None = None
    """Every scope but ``admin`` when left out."""
    cache_seconds: PositiveFloat = 30.0
    """How long a review holds."""


class UpstreamHeaderSettings(Section, frozen=True):
    """Headers of an authenticating proxy in front of the gateway."""

    trusted: list[str] = field(default_factory=list)
    """The proxy's addresses, as CIDRs. Requests from anywhere else are refused."""
    user_header: str = "x-remote-user"
    project_header: str = "x-remote-project"
    scopes_header: str = "x-remote-scopes"
    """Scopes between spaces or commas; without it the caller has ``default_scopes``."""
    default_project: ProjectName | None = None
    """Of requests that name none; without it they are refused."""
    default_scopes: list[Scope] | None = None
    """Every scope but ``admin`` when left out."""


class IdentitySettings(Section, frozen=True):
    """How callers prove who they are.

    ``IdentitySettings(mode="api_keys")``
    """

    mode: IdentityMode = "none"
    allow_anonymous: bool = False
    """Take requests of anybody from other machines too, where the mode is ``none``."""
    cache_entries: PositiveInt = 10_000
    """How many credentials a process remembers."""
    api_keys: ApiKeySettings = field(default_factory=ApiKeySettings)
    oidc: OidcSettings = field(default_factory=OidcSettings)
    kubernetes: KubernetesSettings = field(default_factory=KubernetesSettings)
    upstream_header: UpstreamHeaderSettings = field(default_factory=UpstreamHeaderSettings)
