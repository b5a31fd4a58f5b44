"""``understudy``: the command line."""

from __future__ import annotations

import os
from pathlib import Path

import click
import msgspec

from gateway import __version__
from gateway.configuration import load_settings
from gateway.settings import Settings, SettingsError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="understudy")
def main() -> None:
    """An OpenAI-compatible gateway that stands in for LlamaStack."""


@main.command()
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="UNDERSTUDY_CONFIG",
    help="A YAML file with settings.",
)
@click.option("--host", help="The address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="The port to listen on.  [default: 8321]")
@click.option("--workers", type=int, help="How many processes take requests.  [default: 1]")
@click.option(
    "--vllm",
    multiple=True,
    metavar="URL",
    help="A vLLM server, e.g. http://vllm:8000; its models are found out. May be repeated.",
)
@click.option(
    "--data-dir", help="The only folder that is written to.  [default: ./understudy-data]"
)
def serve(
    config: Path | None,
    host: str | None,
    port: int | None,
    workers: int | None,
    vllm: tuple[str, ...],
    data_dir: str | None,
) -> None:
    """Serve the OpenAI API on top of model servers.

    Every option can be a setting in the file or a variable in the environment as well; an option
    wins over both.
    """
    from gateway.serving import CONFIG_VARIABLE
    from gateway.serving import serve as run

    # Options become variables, so that worker processes see them too.
    if config is not None:
        os.environ[CONFIG_VARIABLE] = str(config)
    for name, value in (
        ("UNDERSTUDY_SERVER__HOST", host),
        ("UNDERSTUDY_SERVER__PORT", port),
        ("UNDERSTUDY_SERVER__WORKERS", workers),
        ("UNDERSTUDY_DATA_DIR", data_dir),
    ):
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


def _check_that_it_can_serve(settings: Settings) -> None:
    if not settings.models and not settings.discover:
        raise SettingsError(
            "no model server: give --vllm URL, or `discover:` or `models:` in --config FILE"
        )


if __name__ == "__main__":
    main()
