"""``understudy keys``: making API keys and ending them."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import click
import msgspec

from gateway.configuration import load_settings
from gateway.database.engine import Database
from gateway.database.migrate import SchemaMismatch, current_revision, newest_revision, upgrade
from gateway.errors import GatewayError
from gateway.identity.api_keys import ApiKey, ApiKeyService, Entry
from gateway.identity.principal import DEFAULT_PROJECT
from gateway.identity.scopes import SCOPES
from gateway.settings import SettingsError

__all__ = ["keys_commands"]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}
_COLUMNS = ("id", "prefix", "project", "name", "state", "scopes", "models", "expires", "last used")


def _seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """``90s``, ``15m``, ``12h``, ``30d``, ``4w``."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d{1,6})([smhdw])", value)
    if match is None:
        raise click.BadParameter("expected a time such as 90s, 15m, 12h, 30d or 4w", ctx, param)
    return int(match[1]) * _UNITS[match[2]]


def keys_commands(entry: Entry) -> click.Group:
    """The group ``keys``; ``entry`` makes what the audit log gets of each change."""
    run = partial(_run, entry)

    @click.group("keys")
    def group() -> None:
        """Make and end API keys, which `identity.mode: api_keys` asks for.

        A server goes by what it read of a key for `identity.api_keys.cache_seconds`, so a key
        that is ended is refused everywhere after that time.
        """

    @group.command("create")
    @click.option("--project", default=DEFAULT_PROJECT, show_default=True, help="Whose it is.")
    @click.option("--name", default="", help="What it is for, or who has it.")
    @click.option(
        "--scope",
        "scopes",
        multiple=True,
        type=click.Choice(list(SCOPES)),
        help="What it may do; may be repeated.  [default: all but admin]",
    )
    @click.option(
        "--model", "models", multiple=True, help="A model's id; may be repeated.  [default: all]"
    )
    @click.option(
        "--expires", metavar="TIME", callback=_seconds, help="For how long it is good, e.g. 30d."
    )
    @_options
    def create(
        project: str,
        name: str,
        scopes: tuple[str, ...],
        models: tuple[str, ...],
        expires: int | None,
        **common: Any,
    ) -> None:
        """Make a key. Its secret is shown this once and kept nowhere."""

        async def make(service: ApiKeyService) -> ApiKey:
            return await service.create(
                project=project, name=name, scopes=scopes, models=models, expires_in=expires
            )

        _show_secret(run(make, **common), as_json=common["as_json"])

    @group.command("list")
    @click.option("--project", help="Only those of this one.")
    @click.option("--all", "ended", is_flag=True, help="Those that have ended too.")
    @_options
    def list_keys(project: str | None, *, ended: bool, **common: Any) -> None:
        """List keys. No secret is shown: none is kept."""
        keys = run(lambda service: service.list(project, ended=ended), **common)
        if common["as_json"]:
            click.echo(msgspec.json.encode([_as_dict(key) for key in keys]))
        else:
            _show_table([_COLUMNS, *map(_row, keys)])

    @group.command("revoke")
    @click.argument("key")
    @_options
    def revoke(key: str, **common: Any) -> None:
        """End a key, named by its id or its visible prefix."""
        ended = run(lambda service: service.revoke(key), **common)
        if common["as_json"]:
            click.echo(msgspec.json.encode(_as_dict(ended)))
        else:
            click.echo(f"{ended.id} is revoked.")

    @group.command("rotate")
    @click.argument("key")
    @click.option(
        "--grace",
        metavar="TIME",
        callback=_seconds,
        default="0s",
        show_default=True,
        help="How long the secret of today stays good beside the new one, e.g. 24h.",
    )
    @_options
    def rotate(key: str, grace: int, **common: Any) -> None:
        """Give a key a new secret, shown this once. Its id and what it may do stay."""
        rotated = run(lambda service: service.rotate(key, grace_seconds=grace), **common)
        _show_secret(rotated, as_json=common["as_json"])

    return group


def _options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Write JSON."),
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
    entry: Entry,
    act: Callable[[ApiKeyService], Awaitable[Any]],
    *,
    config: Path | None,
    data_dir: str | None,
    as_json: bool,  # noqa: ARG001  (one of the common options)
) -> Any:
    if data_dir is not None:
        # As YAML, which is what the environment's values are read as.
        os.environ["UNDERSTUDY_DATA_DIR"] = msgspec.json.encode(data_dir).decode()

    async def with_database(database: Database) -> Any:
        try:
            await _check_schema(database)
            return await act(ApiKeyService(database, entry))
        finally:
            await database.aclose()

    try:
        settings = load_settings(config)
        folder = Path(settings.data_dir).absolute()
        return asyncio.run(with_database(Database(settings.database, folder)))
    except GatewayError as error:
        raise click.ClickException(error.message) from None
    except (SettingsError, SchemaMismatch) as error:
        raise click.ClickException(str(error)) from None


async def _check_schema(database: Database) -> None:
    """A new database is made; one of another version is left as it is."""
    found = await current_revision(database)
    if found is None:
        await upgrade(database)
    elif found != newest_revision():
        raise SchemaMismatch(
            f"The database is at revision {found}, and this version works with "
            f"{newest_revision()}. Run `understudy db upgrade`."
        )


def _show_secret(key: ApiKey, *, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode({**_as_dict(key), "secret": key.secret}))
        return
    click.echo(key.secret)
    click.echo(f"This is the only time that the secret of {key.id} is shown.", err=True)


def _as_dict(key: ApiKey) -> dict[str, Any]:
    shown = msgspec.structs.asdict(key)
    del shown["secret"]
    return {**shown, "state": key.state}


def _row(key: ApiKey) -> tuple[str, ...]:
    return (
        key.id,
        f"{key.prefix}…",
        key.project,
        key.name or "-",
        key.state,
        ",".join(key.scopes),
        ",".join(key.models) if key.models is not None else "all",
        _day(key.expires_at, "never"),
        _day(key.last_used_at, "never"),
    )


def _day(when: int | None, otherwise: str) -> str:
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d %H:%M") if when else otherwise


def _show_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
