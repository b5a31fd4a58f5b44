"""The data folder, and the files that settings name."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from gateway.check.certificates import ends_of
from gateway.check.finding import Outcome, failed, fine, warned
from gateway.check.probe import Probe
from gateway.check.systems import Systems
from gateway.settings import Section, Settings

__all__ = ["not_there", "probes", "writable"]

_LITTLE_SPACE = 1024**3
_SOON_SECONDS = 30 * 24 * 3600
_DAY = 24 * 3600
_IDENTITY_MODES = ("oidc", "kubernetes")
"""Those with files, some of which are named by default."""
_TOKENS = frozenset({"api_key_file", "authorization_file", "services_token_file", "token_file"})


def probes(systems: Systems) -> list[Probe]:
    """One for the data folder, one for each file."""
    folder = systems.data_dir
    found = [
        Probe(
            system="data folder",
            address=str(folder),
            look=partial(asyncio.to_thread, _data_folder, folder),
        )
    ]
    named: dict[str, tuple[str, str, str | None]] = {}
    for setting, key, file, private in _files(systems.settings):
        named.setdefault(file, (setting, key, private))
    for file, (setting, key, private) in named.items():
        if key in _TOKENS:
            look = partial(asyncio.to_thread, _token, setting, Path(file))
        else:
            look = partial(asyncio.to_thread, _certificates, setting, key, Path(file), private)
        found.append(Probe(system="file", address=file, look=look))
    return found


def writable(folder: Path) -> str | None:
    """Why nothing can be written there; ``None`` where it can. Leaves nothing behind."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".understudy-check-") as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        return error.strerror or type(error).__name__
    return None


async def not_there(path: Path, setting: str) -> Outcome | None:
    """What to say of a file or folder that the server makes; ``None`` where it is there."""
    if await asyncio.to_thread(path.exists):
        return None
    if why := await asyncio.to_thread(can_be_made, path):
        mend = f"Let this user write there, or name another place in {setting}."
        return failed(f"can't be made: {why}", mend)
    return fine("made at the first start")


def can_be_made(folder: Path) -> str | None:
    """Why a folder that isn't there can't be made; ``None`` where it can."""
    above = next(one for one in folder.parents if one.exists())
    if not above.is_dir():
        return f"{above} is no folder"
    why = writable(above)
    return f"{above} can't be written: {why}" if why else None


def _data_folder(folder: Path) -> Outcome:
    mend = "Let this user write there (on OpenShift: a volume, or an emptyDir), or name another "
    mend += "folder in data_dir."
    if not folder.exists():
        why = can_be_made(folder)
        return failed(f"can't be made: {why}", mend) if why else fine("made at the first start")
    if not folder.is_dir():
        return failed("is no folder", mend)
    if why := writable(folder):
        return failed(f"can't be written: {why}", mend)
    free = shutil.disk_usage(folder).free
    said = f"writable, {free / 1024**3:.1f} GiB free"
    if free < _LITTLE_SPACE:
        return warned(said, "Make room: uploads and conversions need space in it.")
    return fine(said)


def _files(settings: Settings) -> Iterator[tuple[str, str, str, str | None]]:
    """Each file with the setting that names it, its key, and the private key beside it."""
    idle = {f"identity.{mode}" for mode in _IDENTITY_MODES if mode != settings.identity.mode}
    if not settings.kserve.enabled:
        idle.add("kserve")

    def walk(value: Any, path: str) -> Iterator[tuple[str, str, str, str | None]]:
        if path in idle:
            return
        if isinstance(value, Section):
            for field in msgspec.structs.fields(value):
                here = f"{path}.{field.name}".lstrip(".")
                inside = getattr(value, field.name)
                if isinstance(inside, str) and (
                    field.name in _TOKENS
                    or field.name in ("ca_file", "client_cert", "services_ca_file")
                ):
                    private = getattr(value, "client_key", None)
                    yield here, field.name, inside, private
                else:
                    yield from walk(inside, here)
        elif isinstance(value, (list, tuple)):
            for index, one in enumerate(value):
                yield from walk(one, f"{path}.{index}")

    yield from walk(settings, "")


def _token(setting: str, file: Path) -> Outcome:
    try:
        empty = not file.read_text(encoding="utf-8").strip()
    except OSError as error:
        return failed(
            f"{setting}: can't be read: {error.strerror}", "Mount it, or let this user read it."
        )
    except UnicodeDecodeError:
        return failed(f"{setting}: is no text", "Put the bare token in it.")
    if empty:
        return failed(f"{setting}: is empty", "Put the bare token in it.")
    return fine(f"{setting}: readable")


def _certificates(setting: str, key: str, file: Path, private: str | None) -> Outcome:
    try:
        ends = ends_of(file.read_text(encoding="latin-1"))
        if key == "client_cert":
            ssl.create_default_context().load_cert_chain(file, private)
        else:
            ssl.create_default_context(cafile=str(file))
    except OSError as error:  # ssl.SSLError is one
        why = getattr(error, "reason", None) or error.strerror or type(error).__name__
        return failed(
            f"{setting}: can't be used: {why}", "Give a PEM file that this user can read."
        )
    except ValueError:
        return failed(f"{setting}: holds no certificate", "Give a PEM file with certificates.")
    now = time.time()
    # A bundle may hold old authorities; a chain is only as good as its shortest part.
    counts = min(ends) if key == "client_cert" else max(ends)
    days = round((counts - now) / _DAY)
    said = f"{setting}: {len(ends)} certificate{'s' if len(ends) > 1 else ''}"
    if counts < now:
        return failed(f"{said}, expired {-days} days ago", "Replace it by a valid one.")
    if counts - now < _SOON_SECONDS:
        return warned(f"{said}, valid for {days} more days", "Replace it in time.")
    return fine(f"{said}, valid for {days} more days")
