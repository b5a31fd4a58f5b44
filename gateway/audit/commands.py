"""``understudy audit``: taking the audit log out of the database."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import click
import msgspec

from gateway.audit.repository import AuditFilter
from gateway.audit.service import AuditLog
from gateway.configuration import load_settings
from gateway.database.engine import Database
from gateway.errors import UpstreamError
from gateway.settings import SettingsError

__all__ = ["audit_commands"]

_TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]


def audit_commands() -> click.Group:
    """The group ``audit``."""

    @click.group("audit")
    def group() -> None:
        """Read the log of who changed what."""

    @group.command("export")
    @click.option(
        "--format",
        "form",
        type=click.Choice(["jsonl", "csv"]),
        default="jsonl",
        show_default=True,
        help="One JSON object a line, or CSV.",
    )
    @click.option(
        "--output", type=click.File("wb"), default="-", help="The file.  [default: stdout]"
    )
    @click.option("--since", type=click.DateTime(_TIMES), help="From then on, UTC.")
    @click.option("--until", type=click.DateTime(_TIMES), help="Before then, UTC.")
    @click.option("--project", help="Only of this one.")
    @click.option(
        "--config",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        envvar="UNDERSTUDY_CONFIG",
        help="A YAML file with settings.",
    )
    @click.option("--data-dir", help="The folder of the embedded database.")
    def export(
        form: str,
        output: BinaryIO,
        since: datetime | None,
        until: datetime | None,
        project: str | None,
        config: Path | None,
        data_dir: str | None,
    ) -> None:
        """Write the entries, the oldest first."""
        if data_dir is not None:
            # As YAML, which is what the environment's values are read as.
            os.environ["UNDERSTUDY_DATA_DIR"] = msgspec.json.encode(data_dir).decode()
        chosen = AuditFilter(project=project, since=_seconds(since), until=_seconds(until))
        try:
            settings = load_settings(config)
            database = Database(settings.database, Path(settings.data_dir).absolute())
            asyncio.run(_export(database, chosen, form, output))
        except UpstreamError as error:
            raise click.ClickException(error.message) from None
        except SettingsError as error:
            raise click.ClickException(str(error)) from None

    return group


async def _export(database: Database, chosen: AuditFilter, form: str, output: BinaryIO) -> None:
    try:
        async for block in AuditLog(database, None).export(chosen, form):
            output.write(block)
    finally:
        await database.aclose()


def _seconds(time: datetime | None) -> int | None:
    return None if time is None else int(time.replace(tzinfo=UTC).timestamp())
