"""Shields: LlamaStack's names for guards, and judging messages by several of them at once.

Every guard is a shield by its own name. More names can be registered, each within its project.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from gateway.database.engine import Database
from gateway.database.identifiers import sequence
from gateway.database.tables import ShieldRow
from gateway.errors import Conflict, GatewayError, InvalidRequest, ModelNotFound, WrongKind
from gateway.identity.principal import Principal
from gateway.moderations.conversation import Conversation, conversation_of
from gateway.moderations.guards import Guard, Guards, check_images
from gateway.moderations.service import USER_MESSAGE
from gateway.observability.activity import Activity
from gateway.profile import Profile
from gateway.routing.catalog import AllowedModels
from gateway.shields.repository import ShieldRepository
from gateway.shields.schemas import (
    RegisterShield,
    RunShield,
    RunShieldResponse,
    SafetyViolation,
    ShieldList,
    ShieldObject,
)

__all__ = ["ShieldService", "Violation"]

_ID = re.compile(r"[^\x00-\x20\x7f]{1,80}")
_MOST_SHIELDS = 1000
"""Registered in one project."""
_MOST_AT_ONCE = 16
"""Of one judgement."""
_MAX_PARAMS_BYTES = 16 * 1024


class Violation(Struct, frozen=True, kw_only=True):
    """A shield's no. ``categories`` are in its guard's own words: ``S1``, ``violence``."""

    shield_id: str
    user_message: str
    categories: Sequence[str]
    level: Literal["info", "warn", "error"] = "error"


class ShieldService:
    def __init__(self, database: Database, guards: Guards, profile: Profile) -> None:
        self._database = database
        self._guards = guards
        self._profile = profile

    async def list(self, principal: Principal) -> ShieldList:
        """The guards, then what was registered."""
        guards = {guard.name: _of_guard(guard) for guard in self._guards.all(principal.models)}
        async with self._database.read() as session:
            rows = await ShieldRepository(session).all(principal.project, _MOST_SHIELDS)
        registered = [_of_row(row) for row in rows if row.id not in guards]
        return ShieldList([*guards.values(), *registered])

    async def get(self, principal: Principal, identifier: str) -> ShieldObject:
        """Raises the profile's error where there is none."""
        guard = self._guard_named(identifier, principal.models)
        if guard is not None:
            return _of_guard(guard)
        async with self._database.read() as session:
            row = await ShieldRepository(session).find(principal.project, identifier)
        if row is None:
            raise self._unknown(identifier, "identifier")
        return _of_row(row)

    async def register(self, principal: Principal, wanted: RegisterShield) -> ShieldObject:
        """Registering an id again replaces what it was. A guard's own name can't be taken."""
        identifier, params = _checked(wanted)
        if self._guard_named(identifier) is not None:
            if wanted.provider_shield_id not in (None, identifier):
                raise Conflict(
                    f"'{identifier}' is a guard's own name and can't be given to another.",
                    param="shield_id",
                )
            return await self.get(principal, identifier)
        guard = self._guard_for(
            wanted.provider_shield_id or identifier, "provider_shield_id", principal.models
        )
        row = ShieldRow(
            project=principal.project,
            id=identifier,
            sequence=sequence(),
            provider_id=wanted.provider_id or guard.provider_id,
            provider_resource_id=wanted.provider_shield_id or identifier,
            params=params,
        )
        async with self._database.begin() as session:
            shields = ShieldRepository(session)
            if await shields.count(principal.project) >= _MOST_SHIELDS:
                raise InvalidRequest(
                    f"No more than {_MOST_SHIELDS} shields can be registered.", param="shield_id"
                )
            await shields.put(row)
        return _of_row(row)

    async def delete(self, principal: Principal, identifier: str) -> None:
        """Of a registered one. Raises ``Conflict`` for a guard's own."""
        if self._guard_named(identifier) is not None:
            raise Conflict(
                f"'{identifier}' is the name of a guard, which is there as long as it is "
                "configured or served.",
                param="identifier",
            )
        async with self._database.begin() as session:
            if not await ShieldRepository(session).delete(principal.project, identifier):
                raise self._unknown(identifier, "identifier")

    async def run(
        self, principal: Principal, activity: Activity, request: RunShield
    ) -> RunShieldResponse:
        """Raises the profile's error for an unknown shield, and ``UpstreamError`` where the guard
        gives no verdict.
        """
        shield_id = request.shield_id
        found = await self._resolved(principal, [shield_id], "shield_id")
        if shield_id not in found:
            raise self._unknown(shield_id, "shield_id")
        conversation = conversation_of(request.messages)
        if conversation is None:
            return RunShieldResponse()
        check_images(found[shield_id], conversation, "messages")
        violation = await _judged(activity, shield_id, found[shield_id], conversation)
        if violation is None:
            return RunShieldResponse()
        return RunShieldResponse(
            SafetyViolation(
                violation_level=violation.level,
                user_message=violation.user_message,
                metadata={"violation_type": ",".join(violation.categories)},
            )
        )

    async def violation(
        self,
        principal: Principal,
        activity: Activity,
        shield_ids: Sequence[str],
        messages: Sequence[Mapping[str, Any]],
    ) -> Violation | None:
        """The first no of these shields to the last message; ``None`` where all say yes.

        They judge at once, and a no ends the others. Raises ``InvalidRequest`` for a shield that
        isn't there, and ``UpstreamError`` where a guard gives no verdict: only what all have judged
        is safe.
        """
        wanted = list(dict.fromkeys(shield_ids))
        if len(wanted) > _MOST_AT_ONCE:
            raise InvalidRequest(
                f"Invalid value for 'guardrails': no more than {_MOST_AT_ONCE} can be used.",
                param="guardrails",
                code="invalid_value",
            )
        found = await self._resolved(principal, wanted, "guardrails")
        for shield_id in wanted:
            if shield_id not in found:
                raise InvalidRequest(
                    f"Shield '{shield_id[:100]}' not found.",
                    param="guardrails",
                    code="invalid_value",
                )
        conversation = conversation_of(messages)
        if conversation is None:
            return None
        for guard in found.values():
            check_images(guard, conversation, "guardrails")
        tasks = [
            asyncio.create_task(_judged(activity, shield_id, found[shield_id], conversation))
            for shield_id in wanted
        ]
        return await _first_violation(tasks)

    async def _resolved(
        self, principal: Principal, identifiers: Sequence[str], param: str
    ) -> dict[str, Guard]:
        """The guards behind these shields; those that aren't there are left out.

        A guard that is named itself must be one that the caller may use. One that was registered
        in its project is the project's.

        Raises ``InvalidRequest`` where a registered shield's guard is gone.
        """
        found: dict[str, Guard] = {}
        others: list[str] = []
        for identifier in identifiers:
            guard = self._guard_named(identifier, principal.models)
            if guard is None:
                others.append(identifier)
            else:
                found[identifier] = guard
        if others:
            async with self._database.read() as session:
                rows = await ShieldRepository(session).find_all(principal.project, others)
            for identifier, row in rows.items():
                found[identifier] = self._guard_for(row.provider_resource_id, param)
        return found

    def _guard_named(self, name: str, allowed: AllowedModels = None) -> Guard | None:
        try:
            return self._guards.find(name, allowed)
        except (ModelNotFound, WrongKind):
            return None

    def _guard_for(self, name: str, param: str, allowed: AllowedModels = None) -> Guard:
        """Raises ``InvalidRequest``."""
        try:
            return self._guards.find(name, allowed)
        except GatewayError as error:
            raise InvalidRequest(
                f"There is no guard '{name[:100]}': {error.message}",
                param=param,
                code=error.code,
            ) from None

    def _unknown(self, identifier: str, param: str) -> GatewayError:
        return self._profile.unknown_shield(f"Shield '{identifier[:100]}' not found.", param=param)


async def _judged(
    activity: Activity, shield_id: str, guard: Guard, conversation: Conversation
) -> Violation | None:
    [judgement] = await guard.judge(activity, [conversation])
    if not judgement.flagged:
        return None
    return Violation(
        shield_id=shield_id, user_message=USER_MESSAGE, categories=list(judgement.violated)
    )


async def _first_violation(tasks: Sequence[asyncio.Task[Violation | None]]) -> Violation | None:
    """Of those that are over at the same time the first in order. Raises what one of them raises,
    unless another has said no before. None is running any more afterwards.
    """
    waiting = set(tasks)
    try:
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            over = [task for task in tasks if task in done]
            failures = [error for task in over if (error := task.exception()) is not None]
            for task in over:
                if task.exception() is None and (violation := task.result()) is not None:
                    return violation
            if failures:
                raise failures[0]
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    return None


def _checked(wanted: RegisterShield) -> tuple[str, dict[str, Any]]:
    """The id and the params. Raises ``InvalidRequest`` for what can't be kept."""
    for param in ("shield_id", "provider_shield_id", "provider_id"):
        value = getattr(wanted, param)
        if value is not None and _ID.fullmatch(value) is None:
            raise InvalidRequest(
                f"Invalid value for '{param}': expected 1 to 80 characters without spaces.",
                param=param,
                code="invalid_value",
            )
    params = wanted.params or {}
    encoded = msgspec.json.encode(params)
    if len(encoded) > _MAX_PARAMS_BYTES or b"\\u0000" in encoded:
        raise InvalidRequest(
            f"Invalid value for 'params': expected up to {_MAX_PARAMS_BYTES} bytes of JSON without "
            "the character NUL.",
            param="params",
            code="invalid_value",
        )
    return wanted.shield_id, params


def _of_guard(guard: Guard) -> ShieldObject:
    return ShieldObject(
        identifier=guard.name, provider_resource_id=guard.name, provider_id=guard.provider_id
    )


def _of_row(row: ShieldRow) -> ShieldObject:
    return ShieldObject(
        identifier=row.id,
        provider_resource_id=row.provider_resource_id,
        provider_id=row.provider_id,
        params=row.params,
    )
