"""Reading the configuration again while the gateway runs.

At SIGHUP, and when the file has become another one: an editor's new file, or that of a Kubernetes
ConfigMap, where the kubelet swaps the link ``..data`` that the path leads through. What can't be
changed in a running process is named in the log and waits for the next start; a file that is wrong
changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.configuration import load_settings
from gateway.settings import Settings, SettingsError

__all__ = ["LIVE", "Reloading"]

logger = logging.getLogger(__name__)

LOOK_SECONDS = 2.0

SETTLING_SECONDS = 0.1
SETTLING_LOOKS = 20

LIVE = frozenset({"models", "discover", "discover_interval_seconds", "routing"})
"""The sections that a running process takes over."""

_Identity = tuple[int, int, int, int]


class Reloading:
    """``apply`` takes new settings over or raises ``SettingsError``; ``told`` hears how each
    reading went: ``applied``, ``unchanged`` or ``invalid``.
    """

    def __init__(
        self,
        config: Path | None,
        settings: Settings,
        apply: Callable[[Settings], None],
        told: Callable[[str], None],
    ) -> None:
        self._config = config
        self._first = settings
        self._settings = settings
        self._apply = apply
        self._told = told
        self._asked = asyncio.Event()
        self._seen: _Identity | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The time in which changes are taken over. SIGHUP is listened for where that is possible:
        in the main thread.
        """
        loop = asyncio.get_running_loop()
        listens = False
        with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
            loop.add_signal_handler(signal.SIGHUP, self._asked.set)
            listens = True
        self._seen = await asyncio.to_thread(self._identity)
        if self._seen is not None:
            await self.reload(first=True)  # it may be another one than when this process began
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self._watch())
            try:
                yield
            finally:
                task.cancel()
                if listens:
                    loop.remove_signal_handler(signal.SIGHUP)
                    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    async def reload(self, *, first: bool = False) -> None:
        """Read everything again and take over what can be. Never raises.

        The ``first`` time is none that anybody has asked for: it is not told of where it brings
        nothing.
        """
        try:
            # The environment is read too; an option of the command line is part of it.
            settings = await asyncio.to_thread(load_settings, self._config)
            changed = self._take(settings)
        except SettingsError as error:
            logger.error("The configuration is wrong; the old one stays: %s", error)  # noqa: TRY400
            self._told("invalid")
        except Exception:  # the gateway serves on with what it has
            logger.exception("The configuration can't be read; the old one stays")
            self._told("invalid")
        else:
            if changed:
                logger.info("The configuration has changed: %s", ", ".join(changed))
            if waiting := _differing(settings, self._first, but=LIVE):
                logger.warning("Changed, and needs a restart: %s", ", ".join(waiting))
            if changed or not first:
                self._told("applied" if changed else "unchanged")

    def _take(self, settings: Settings) -> list[str]:
        """The names of the sections that are new; they are in use now."""
        before = self._settings
        if _names_servers(before) and not _names_servers(settings):
            # Most likely a file that was emptied to be written anew.
            raise SettingsError("models, discover: no model server is left")
        changed = [name for name in _differing(settings, before) if name in LIVE]
        if changed:
            self._apply(settings)
        self._settings = settings
        return changed

    async def _watch(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._asked.wait()
            asked = self._asked.is_set()
            self._asked.clear()
            found = await asyncio.to_thread(self._identity)
            if asked or (found is not None and found != self._seen):
                self._seen = await self._settled(found)
                await self.reload()

    async def _settled(self, found: _Identity | None) -> _Identity | None:
        """The file's identity once it stays the same: whoever writes it may not be done."""
        for _ in range(SETTLING_LOOKS):
            await asyncio.sleep(SETTLING_SECONDS)
            before, found = found, await asyncio.to_thread(self._identity)
            if found == before:
                break
        return found

    def _identity(self) -> _Identity | None:
        """Of the file that the path leads to now; ``None`` while it leads nowhere."""
        if self._config is None:
            return None
        try:
            status = self._config.stat()
        except OSError:
            return None
        return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)


def _differing(one: Settings, other: Settings, *, but: Collection[str] = ()) -> list[str]:
    """The sections that aren't the same."""
    return [
        name
        for name in one.__struct_fields__
        if name not in but and getattr(one, name) != getattr(other, name)
    ]


def _names_servers(settings: Settings) -> bool:
    return bool(settings.models or settings.discover)
