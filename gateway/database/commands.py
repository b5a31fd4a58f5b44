"""``understudy db``: looking after the schema by hand."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import click
import msgspec

from gateway.configuration import load_settings
from gateway.database.engine import Database
from gateway.database.migrate import (
    SchemaMismatch,
    current_revision,
    newest_revision,
    upgrade,
)
from gateway.errors import UpstreamError
from gateway.ports.job_queue import JobQueue
from gateway.settings import Settings, SettingsError

__all__ = ["database_commands"]

QueueFactory = Callable[[Settings, Database], JobQueue]


def database_commands(queue_of: QueueFactory) -> click.Group:
    """The group ``db``; ``queue_of`` makes the queue, whose tables are part of an upgrade."""

    @click.group("db")
    def group() -> None:
        """Look after the database's schema. `understudy serve` does so at every start."""

    @group.command("upgrade")
    @_options
    def upgrade_command(config: Path | None, data_dir: str | None) -> None:
        """Bring the schema up to date, e.g. before replicas are replaced."""

        async def bring_up(settings: Settings, database: Database) -> None:
            done = await upgrade(database)
            queue = queue_of(settings, database)
            try:
                await queue.start()
            finally:
                await queue.aclose()
            said = "The schema is at revision {} now." if done else "The schema is current: {}."
            click.echo(said.format(newest_revision()))

        _run(bring_up, config, data_dir)

    @group.command("current")
    @_options
    def current_command(config: Path | None, data_dir: str | None) -> None:
        """Show the schema's revision and the one that this version works with."""

        async def show(_: Settings, database: Database) -> None:
            found = await current_revision(database)
            click.echo(f"{found or 'none'} (this version works with {newest_revision()})")

        _run(show, config, data_dir)

    return group


def _options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--data-dir", help="The folder of the embedded database."),
        click.option(
            "--config",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            envvar="UNDERSTUDY_CONFIG",
            help="A YAML file with settings.",
        ),
    ):
        command = option(command)
    return command


def _run(
    act: Callable[[Settings, Database], Awaitable[None]], config: Path | None, data_dir: str | None
) -> None:
    if data_dir is not None:
        # As YAML, which is what the environment's values are read as.
        os.environ["UNDERSTUDY_DATA_DIR"] = msgspec.json.encode(data_dir).decode()

    async def with_database(settings: Settings, folder: Path) -> None:
        database = Database(settings.database, folder)
        try:
            await act(settings, database)
        finally:
            await database.aclose()

    try:
        settings = load_settings(config)
        asyncio.run(with_database(settings, Path(settings.data_dir).absolute()))
    except UpstreamError as error:
        raise click.ClickException(error.message) from None
    except (SettingsError, SchemaMismatch) as error:
        raise click.ClickException(str(error)) from None
