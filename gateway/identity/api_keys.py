"""API keys: making them, listing them, ending them."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256

from msgspec import Struct

from gateway.database.engine import Database
from gateway.database.identifiers import new_id, now, seconds, sequence
from gateway.database.tables import ApiKeyRow, AuditRow
from gateway.errors import InvalidRequest, NotFound
from gateway.identity.key_repository import ApiKeyRepository
from gateway.identity.projects import check_project
from gateway.identity.scopes import ORDINARY, SCOPES, unknown_scopes

__all__ = ["ApiKey", "ApiKeyService", "Entry", "digest_of"]

Entry = Callable[[str, str, str], AuditRow]
"""Makes the audit log's entry of a project, an action such as ``keys.create``, and a key's id."""

SECRET_PREFIX = "sk-us-"  # noqa: S105  (what every secret begins with)
_SHOWN_CHARACTERS = 12
_SECRET_BYTES = 32
MAX_NAME_CHARACTERS = 200


class ApiKey(Struct, frozen=True, kw_only=True):
    """A key as people see it. Times are in seconds since the epoch.

    ``secret`` is there once: when the key, or a new secret of it, has just been made.
    """

    id: str
    name: str
    project: str
    prefix: str
    scopes: list[str]
    models: list[str] | None
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    last_used_at: int | None
    secret: str | None = None

    @property
    def state(self) -> str:
        """``active``, ``expired`` or ``revoked``."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now() else "active"


class ApiKeyService:
    """What ``understudy keys`` does. Each change is written down in its own transaction."""

    def __init__(self, database: Database, entry: Entry) -> None:
        self._database = database
        self._entry = entry

    async def create(
        self,
        *,
        project: str,
        name: str = "",
        scopes: Iterable[str] = (),
        models: Iterable[str] = (),
        expires_in: int | None = None,
    ) -> ApiKey:
        """A new key with its secret. ``expires_in`` is in seconds.

        Without scopes it has all but ``admin``; without models it may use all of them. Raises
        ``InvalidRequest``.
        """
        wanted, allowed = sorted(set(scopes)), sorted(set(models))
        if unknown := unknown_scopes(wanted):
            raise InvalidRequest(
                f"Invalid scope '{unknown[0]}': the scopes are {', '.join(SCOPES)}.", param="scope"
            )
        if len(name) > MAX_NAME_CHARACTERS or "\x00" in name:
            raise InvalidRequest(
                f"Invalid name: it has at most {MAX_NAME_CHARACTERS} characters.", param="name"
            )
        secret = _new_secret()
        row = ApiKeyRow(
            id=new_id("key_"),
            project=check_project(project),
            sequence=sequence(),
            name=name,
            prefix=secret[:_SHOWN_CHARACTERS],
            digest=digest_of(secret),
            scopes=wanted or sorted(ORDINARY),
            models=allowed or None,
            expires_at=now() + expires_in if expires_in is not None else None,
        )
        async with self._database.begin() as session:
            ApiKeyRepository(session).add(row)
            session.add(self._entry(row.project, "keys.create", row.id))
        return _shown(row, secret)

    async def list(self, project: str | None = None, *, ended: bool = False) -> Sequence[ApiKey]:
        """The oldest first; ``ended`` has those that are revoked or expired as well."""
        async with self._database.read() as session:
            rows = await ApiKeyRepository(session).list(project)
        keys = [_shown(row) for row in rows]
        return [key for key in keys if ended or key.state == "active"]

    async def revoke(self, name: str) -> ApiKey:
        """End a key, by its id or by its visible prefix. Once ended it stays so.

        Raises ``NotFound``, and ``InvalidRequest`` for a prefix of several.
        """
        async with self._database.begin() as session:
            row = await self._one(ApiKeyRepository(session), name)
            if row.revoked_at is None:
                row.revoked_at = now()
                session.add(self._entry(row.project, "keys.revoke", row.id))
            return _shown(row)

    async def rotate(self, name: str, *, grace_seconds: int = 0) -> ApiKey:
        """Give a key a new secret; the one before it is good for ``grace_seconds`` yet.

        Raises as :meth:`revoke` does, and ``InvalidRequest`` for a key that has ended.
        """
        async with self._database.begin() as session:
            row = await self._one(ApiKeyRepository(session), name)
            if (state := _shown(row).state) != "active":
                raise InvalidRequest(f"The key {row.id} is {state}. Make a new one.", param="key")
            secret = _new_secret()
            row.previous_digest = row.digest if grace_seconds > 0 else None
            row.previous_until = now() + grace_seconds if grace_seconds > 0 else None
            row.digest, row.prefix = digest_of(secret), secret[:_SHOWN_CHARACTERS]
            session.add(self._entry(row.project, "keys.rotate", row.id))
            return _shown(row, secret)

    async def _one(self, repository: ApiKeyRepository, name: str) -> ApiKeyRow:
        found = await repository.named(name)
        if not found:
            raise NotFound(f"No such key: {name}", param="key")
        if len(found) > 1:
            raise InvalidRequest(f"Several keys begin with {name}: give the id.", param="key")
        return found[0]


def digest_of(secret: str) -> str:
    """What a secret is found by. It has 256 random bits, so that no slower function is needed."""
    return sha256(secret.encode("ascii")).hexdigest()


def _new_secret() -> str:
    return SECRET_PREFIX + secrets.token_urlsafe(_SECRET_BYTES)


def _shown(row: ApiKeyRow, secret: str | None = None) -> ApiKey:
    return ApiKey(
        id=row.id,
        name=row.name,
        project=row.project,
        prefix=row.prefix,
        scopes=row.scopes,
        models=row.models,
        created_at=seconds(row.sequence),
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
        secret=secret,
    )
