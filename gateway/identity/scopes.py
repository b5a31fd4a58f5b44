"""What a caller may do, and which routes that opens. The one table that says so."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.errors import MissingScope
from gateway.identity.principal import ADMIN, Principal
from gateway.settings import Scope

__all__ = [
    "ADMIN",
    "ORDINARY",
    "PUBLIC",
    "SCOPES",
    "check_scope",
    "scope_of_path",
    "unknown_scopes",
]

SCOPES: dict[Scope, str] = {
    "inference": "Chat, completions, messages, embeddings, rerank, tokenize, moderations, shields.",
    "models.read": "Listing and reading models.",
    "files": "Files, uploads, and turning files into text.",
    "vector_stores": "Vector stores, their files, searching, and inserting chunks.",
    "responses": "Responses, conversations and prompts.",
    "batches": "Batches.",
    "tools": "Tool groups, tools and connectors.",
    "usage.read": "What the caller's project has used.",
    "admin": "Everything, and what is the operator's: providers, routes, the audit log.",
}
"""The scopes and what each one opens."""

ORDINARY: frozenset[str] = frozenset(SCOPES) - {ADMIN}
"""What a caller may do where nothing else is said."""

PUBLIC = frozenset(
    {
        *("/livez", "/readyz", "/metrics"),
        *("/v1/health", "/v1/version", "/v1alpha/admin/health", "/v1alpha/admin/version"),
    }
)
"""Paths that anybody may ask: they say nothing of anybody's."""

_PREFIXES = frozenset({"v1", "v1alpha", "v1beta", "v2", "openai", "admin"})
"""What paths begin with before they name a resource: ``/v1/openai/v1/files`` is about files."""

_RULES: dict[str, Scope] = {
    **dict.fromkeys(
        (
            *("chat", "completions", "messages", "embeddings", "rerank", "inference"),
            *("tokenize", "detokenize", "moderations", "safety", "shields"),
        ),
        "inference",
    ),
    "models": "models.read",
    **dict.fromkeys(("files", "uploads", "file-processors"), "files"),
    **dict.fromkeys(("vector_stores", "vector-io", "tool-runtime/rag-tool"), "vector_stores"),
    **dict.fromkeys(("responses", "conversations", "prompts"), "responses"),
    "batches": "batches",
    **dict.fromkeys(("tools", "toolgroups", "tool-runtime", "connectors"), "tools"),
    "usage": "usage.read",
    **dict.fromkeys(("providers", "inspect", "audit"), "admin"),
}
"""Resources, by the first part of their paths or the first two, and the scope each one needs."""


def scope_of_path(path: str) -> Scope | None:
    """The scope that a request to this path needs; ``None`` where there is no such resource.

    Empty parts are passed over, as the router does: ``//v1/files/`` is ``/v1/files``.
    """
    parts = [part for part in path.split("/") if part]
    place = 0
    while place < len(parts) and parts[place] in _PREFIXES:
        place += 1
    named = parts[place : place + 2]
    return _RULES.get("/".join(named)) or _RULES.get(named[0] if named else "")


def check_scope(principal: Principal, needed: Scope) -> None:
    """Raises ``MissingScope`` where the caller hasn't got it."""
    scopes = principal.scopes
    if scopes is None or needed in scopes or ADMIN in scopes:
        return
    raise MissingScope(
        f"You have insufficient permissions for this operation. Missing scopes: {needed}."
    )


def unknown_scopes(names: Iterable[str]) -> list[str]:
    """Those that aren't scopes, in their order."""
    return [name for name in names if name not in SCOPES]
