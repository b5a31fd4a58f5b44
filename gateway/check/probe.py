"""One look at one system, and all of them at once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Protocol, TypeVar

from msgspec import Struct

from gateway.check.finding import Finding, Outcome, failed
from gateway.check.mending import mend_of
from gateway.errors import GatewayError
from gateway.settings import SettingsError

__all__ = ["CLOSE_SECONDS", "DEFAULT_SECONDS", "Look", "Probe", "closed_after", "run_all"]

logger = logging.getLogger(__name__)

DEFAULT_SECONDS = 15.0
CLOSE_SECONDS = 2.0
"""How long a look may take for cleaning up, after its time is over as well."""

Look = Callable[[], Awaitable[Outcome | Sequence[Outcome]]]
"""Changes nothing that lasts, and cleans up when it is cancelled. ``GatewayError`` and
``SettingsError`` that it raises are failures with their words."""


class _Closable(Protocol):
    async def aclose(self) -> None: ...


ClosableT = TypeVar("ClosableT", bound=_Closable)


@asynccontextmanager
async def closed_after(one: ClosableT) -> AsyncIterator[ClosableT]:
    """Closes it at the end; a system that hangs holds that up no longer than ``CLOSE_SECONDS``."""
    try:
        yield one
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await one.aclose()


class Probe(Struct, frozen=True, kw_only=True):
    """A system to look at.

    ``patience`` multiplies the time that a look may take, for what is slow by nature.
    """

    system: str
    address: str
    look: Look
    patience: float = 1.0


async def run_all(probes: Iterable[Probe], *, seconds: float = DEFAULT_SECONDS) -> list[Finding]:
    """Look at all of them at the same time; findings are in the order of the probes."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_run(probe, seconds)) for probe in probes]
    return [finding for task in tasks for finding in task.result()]


async def _run(probe: Probe, seconds: float) -> list[Finding]:
    limit = seconds * probe.patience
    began = time.monotonic()
    try:
        async with asyncio.timeout(limit):
            found = await probe.look()
    except TimeoutError:
        found = failed(
            f"no answer within {limit:g} s",
            "See whether it is overloaded or a firewall swallows packets; --timeout waits longer.",
        )
    except GatewayError as error:
        found = failed(error.message, mend_of(error))
    except SettingsError as error:
        found = failed(str(error), "Correct the setting.")
    except Exception as error:  # one system's oddity must not hide what is known of the others
        logger.exception("The look at %s failed", probe.system)
        found = failed(
            f"the look at it failed by itself: {type(error).__name__}",
            "Run it again with --verbose, which shows where.",
        )
    took = time.monotonic() - began
    outcomes = [found] if isinstance(found, Outcome) else found
    return [
        Finding(
            system=one.system or probe.system,
            address=one.address or probe.address,
            state=one.state,
            found=one.found,
            mend=one.mend,
            seconds=round(took, 3),
        )
        for one in outcomes
    ]
