"""The one on whose behalf a request is done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

__all__ = ["ADMIN", "DEFAULT_PROJECT", "NOBODY", "Principal", "is_admin"]

DEFAULT_PROJECT = "default"
"""What everything belongs to where no identity is asked for."""


class Principal(Struct, frozen=True, kw_only=True):
    """A caller. It sees what belongs to its project, and nothing of any other."""

    project: str = DEFAULT_PROJECT
    subject: str | None = None
    """Who it is, as its issuer says: a user, a service account or an API key's owner."""
    key_id: str | None = None
    """The API key's id (``key_…``), where it came with one; never the key."""
    scopes: frozenset[str] | None = None
    """What it may do; ``None`` is everything."""
    models: frozenset[str] | None = None
    """The ids of the models that it may use; ``None`` is all of them."""

    def stored(self) -> dict[str, Any]:
        """What work in the background keeps of it, beside the project that its rows belong to."""
        return {
            "subject": self.subject,
            "key_id": self.key_id,
            "models": sorted(self.models) if self.models is not None else None,
        }

    @classmethod
    def restored(cls, project: str, stored: Mapping[str, Any] | None) -> Principal:
        """The one on whose behalf work was begun; it may do what it was let begin."""
        if stored is None:
            return cls(project=project)
        models = stored.get("models")
        return cls(
            project=project,
            subject=stored.get("subject"),
            key_id=stored.get("key_id"),
            models=frozenset(models) if models is not None else None,
        )


ADMIN = "admin"
"""The scope that sees what other projects used and changed."""


def is_admin(principal: Principal) -> bool:
    """Whether it may see what other projects used and changed."""
    return principal.scopes is None or ADMIN in principal.scopes


NOBODY = Principal()
"""Who asks where no identity is asked for."""
