"""Identity: whoever proves who callers are is asked about a token that is nobody's."""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
from sqlalchemy import func, or_, select
from sqlalchemy.exc import SQLAlchemyError

from gateway.check.database import sqlite_file
from gateway.check.files import not_there
from gateway.check.finding import Outcome, failed, fine, shown, skipped, warned
from gateway.check.probe import Probe, closed_after
from gateway.check.systems import Systems
from gateway.database.migrate import current_revision, newest_revision
from gateway.database.tables import ApiKeyRow
from gateway.errors import Unauthenticated, UpstreamUnavailable
from gateway.settings import SettingsError
from gateway.settings.identity_checks import check_anonymous

__all__ = ["probes"]

_NOBODY = "understudy-check"
_KEYS_LOGGER = "adapters.oidc"


def probes(systems: Systems) -> list[Probe]:
    identity = systems.settings.identity
    looks = {
        "none": ("-", _nobody_is_asked),
        "api_keys": ("the database", _keys),
        "oidc": (shown(identity.oidc.issuer or ""), _issuer),
        "kubernetes": (shown(identity.kubernetes.api_url), _token_reviews),
        "upstream_header": (", ".join(identity.upstream_header.trusted), _proxy),
    }
    address, look = looks[identity.mode]
    return [Probe(system=f"identity {identity.mode}", address=address, look=lambda: look(systems))]


async def _nobody_is_asked(systems: Systems) -> Outcome:
    settings = systems.settings
    try:
        check_anonymous(settings.identity, settings.server)
    except SettingsError as error:
        return failed(str(error), "As it says; `understudy serve` doesn't start like this.")
    if settings.identity.allow_anonymous:
        return warned(
            "whoever reaches the port can read and delete everything",
            "Set identity.mode, unless something in front keeps strangers out.",
        )
    return fine("only this machine can reach the port")


async def _keys(systems: Systems) -> Outcome:
    file = sqlite_file(systems)
    if file is not None and await not_there(file, "database.url") is not None:
        return skipped("there is no database yet, and so no key")
    now = int(time.time())
    good = (
        select(func.count())
        .select_from(ApiKeyRow)
        .where(ApiKeyRow.revoked_at.is_(None))
        .where(or_(ApiKeyRow.expires_at.is_(None), ApiKeyRow.expires_at > now))
    )
    try:
        async with closed_after(systems.database()) as database:
            if await current_revision(database) != newest_revision():
                return skipped("the database has another schema than this version")
            async with database.read() as session:
                count = int((await session.execute(good)).scalar_one())
    except (UpstreamUnavailable, SQLAlchemyError):
        return failed("keys can't be read", "See the line of the database.")
    if not count:
        return warned("there is no key that is good: nobody comes in", "`understudy keys create`")
    return fine(f"{count} key{'s' if count > 1 else ''}")


async def _issuer(systems: Systems) -> Outcome:
    settings = systems.settings.identity.oidc
    token = _token({"alg": settings.algorithms[0], "kid": _NOBODY}, {})
    with _heard(_KEYS_LOGGER) as said:
        try:
            async with closed_after(systems.verifier()) as verifier:
                await verifier.verify(token)
        except Unauthenticated:
            return fine("its keys are fetched")
        except UpstreamUnavailable as error:
            return failed(
                said[0] if said else error.message,
                "Compare identity.oidc.issuer with the tokens' `iss`, and identity.oidc.ca_file "
                "with who signed its certificate.",
            )
    return failed("it took a token that is nobody's", "Report this: it must never happen.")


async def _token_reviews(systems: Systems) -> Outcome:
    try:
        async with closed_after(systems.reviewer()) as reviewer:
            await reviewer.review(_NOBODY)
    except Unauthenticated:
        return fine("it reviews tokens for the gateway")
    except UpstreamUnavailable as error:
        return failed(
            error.message,
            "Bind the gateway's service account to the ClusterRole system:auth-delegator, and "
            "compare identity.kubernetes.api_url, token_file and ca_file.",
        )
    return failed("it took a token that is nobody's", "Look at the API server's authenticators.")


async def _proxy(systems: Systems) -> Outcome:
    headers = systems.settings.identity.upstream_header
    return fine(f"callers are who {headers.user_header} says, from {len(headers.trusted)} networks")


def _token(*parts: object) -> str:
    """A JWT with no real signature."""
    encoded = [base64.urlsafe_b64encode(msgspec.json.encode(part)) for part in parts]
    return b".".join([one.rstrip(b"=") for one in [*encoded, b"AAAA"]]).decode()


class _Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage()[:300])


@contextmanager
def _heard(name: str) -> Iterator[list[str]]:
    """What is logged below this name, which tells why, where an error doesn't."""
    handler, logger = _Heard(), logging.getLogger(name)
    logger.addHandler(handler)
    try:
        yield handler.said
    finally:
        logger.removeHandler(handler)
