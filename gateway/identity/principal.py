"""The one on whose behalf a request is done."""

from __future__ import annotations

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


ADMIN = "admin"
"""The scope that sees what other projects used and changed."""


def is_admin(principal: Principal) -> bool:
    """Whether it may see what other projects used and changed."""
    return principal.scopes is None or ADMIN in principal.scopes


NOBODY = Principal()
"""Who asks where no identity is asked for."""
