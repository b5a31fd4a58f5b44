"""``understudy``: the command line."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from gateway import __version__
from gateway.configuration import load_settings
from gateway.ingestion.commands import ingest
from gateway.ingestion.step_commands import StepAdapters, step_commands
from gateway.settings import Settings, SettingsError

if TYPE_CHECKING:
    from gateway.ports import Bucket, DocumentConverter, PipelineServer
    from gateway.settings import KubeflowSettings

_config_option = click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="UNDERSTUDY_CONFIG",
    help="A YAML file with settings.",
)
_vllm_option = click.option(
    "--vllm",
    multiple=True,
    metavar="URL",
    help="A vLLM server, e.g. http://vllm:8000; its models are found out. May be repeated.",
)
_data_dir_option = click.option(
    "--data-dir", help="The only folder that is written to.  [default: ./understudy-data]"
)


class _Commands(click.Group):
    """Loads some commands only when they are asked for, since what they need takes a while."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_LOADED_LATE])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        load = _LOADED_LATE.get(cmd_name)
        return super().get_command(ctx, cmd_name) if load is None else load()


def _audit() -> click.Command:
    from gateway.audit.commands import audit_commands

    return audit_commands()


def _check() -> click.Command:
    from gateway.app import systems_of
    from gateway.check.command import check_command

    return check_command(systems_of)


def _db() -> click.Command:
    from gateway.app import queue_of
    from gateway.database.commands import database_commands

    return database_commands(queue_of)


def _keys() -> click.Command:
    from gateway.audit.entry import row_of_command
    from gateway.identity.commands import keys_commands

    return keys_commands(row_of_command)


_LOADED_LATE: dict[str, Callable[[], click.Command]] = {
    "audit": _audit,
    "check": _check,
    "db": _db,
    "keys": _keys,
}


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="understudy")
def main() -> None:
    """An OpenAI-compatible gateway that stands in for LlamaStack."""


@main.command()
@_config_option
@click.option("--host", help="The address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="The port to listen on.  [default: 8321]")
@click.option("--workers", type=int, help="How many processes take requests.  [default: 1]")
@click.option(
    "--allow-anonymous",
    is_flag=True,
    help="Take requests of anybody from other machines too, where no identity is asked for.",
)
@_vllm_option
@_data_dir_option
def serve(
    config: Path | None,
    host: str | None,
    port: int | None,
    workers: int | None,
    allow_anonymous: bool,
    vllm: tuple[str, ...],
    data_dir: str | None,
) -> None:
    """Serve the OpenAI API on top of model servers.

    Every option can be a setting in the file or a variable in the environment as well; an option
    wins over both.
    """
    from gateway.serving import serve as serve_settings
    from gateway.settings.identity_checks import check_anonymous

    def run(settings: Settings) -> None:
        check_anonymous(settings.identity, settings.server)
        serve_settings(settings)

    _run(
        run,
        config,
        vllm,
        {
            "UNDERSTUDY_SERVER__HOST": host,
            "UNDERSTUDY_SERVER__PORT": port,
            "UNDERSTUDY_SERVER__WORKERS": workers,
            "UNDERSTUDY_IDENTITY__ALLOW_ANONYMOUS": True if allow_anonymous else None,
            "UNDERSTUDY_DATA_DIR": data_dir,
        },
    )


@main.command()
@_config_option
@_vllm_option
@_data_dir_option
def worker(config: Path | None, vllm: tuple[str, ...], data_dir: str | None) -> None:
    """Do the work on files for servers that run with `ingestion.embedded_worker: false`.

    It takes the same settings as they do. Any number of workers share the work where the database
    is PostgreSQL.
    """
    from gateway.serving import work

    _run(work, config, vllm, {"UNDERSTUDY_DATA_DIR": data_dir})


def _bucket_of(
    endpoint: str,
    bucket: str,
    *,
    access_key: str | None,
    secret_key: str | None,
    region: str | None,
    ca_file: str | None,
) -> Bucket:
    from adapters.minio.bucket import S3Bucket

    return S3Bucket(
        endpoint,
        bucket,
        access_key=access_key,
        secret_key=secret_key,
        region=region,
        ca_file=ca_file,
    )


def _converter_of() -> DocumentConverter:
    from adapters.docling import converter_for

    settings = load_settings(None)
    return converter_for(settings.documents, settings.ingestion)


def _pipeline_server_of(settings: KubeflowSettings) -> PipelineServer:
    from adapters.kubeflow.server import KubeflowServer

    return KubeflowServer(settings)


ingest.context_settings["obj"] = _pipeline_server_of
main.add_command(ingest)
main.add_command(step_commands(StepAdapters(_bucket_of, _converter_of)))


@main.command()
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("openapi"),
    show_default=True,
    help="The folder to write to.",
)
@click.option("--check", is_flag=True, help="Write nothing; fail if the files are not current.")
def openapi(output: Path, check: bool) -> None:
    """Write the API's contract: the OpenAPI document and its coverage of OpenAI's API."""
    from gateway.contract import contract_files

    stale = []
    for name, text in contract_files(output).items():
        file = output / name
        if file.exists() and file.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not check:
            output.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            click.echo(f"wrote {file}")
    if check and stale:
        raise click.ClickException(f"not current: {', '.join(stale)}. Run `understudy openapi`.")


def _run(
    run: Callable[[Settings], None],
    config: Path | None,
    vllm: tuple[str, ...],
    variables: Mapping[str, str | int | None],
) -> None:
    """Options become variables, so that worker processes see them too."""
    from gateway.serving import CONFIG_VARIABLE

    if config is not None:
        os.environ[CONFIG_VARIABLE] = str(config)
    for name, value in variables.items():
        if value is not None:
            # As YAML, which is what the environment's values are read as.
            os.environ[name] = msgspec.json.encode(value).decode()
    try:
        settings = load_settings(config)
        if vllm:
            known = msgspec.to_builtins(settings.discover)
            discover = [*known, *vllm]
            os.environ["UNDERSTUDY_DISCOVER"] = msgspec.json.encode(discover).decode()
            settings = load_settings(config)
        _check_that_it_can_serve(settings)
        run(settings)
    except SettingsError as error:
        raise click.ClickException(str(error)) from None


def _check_that_it_can_serve(settings: Settings) -> None:
    if not (settings.models or settings.discover or settings.kserve.enabled):
        raise SettingsError(
            "no model server: give --vllm URL, or `discover:`, `models:` or `kserve:` in "
            "--config FILE"
        )


if __name__ == "__main__":
    main()
