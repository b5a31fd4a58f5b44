"""``understudy ingest --on kubeflow``: start a run of the ingestion pipeline, and follow it."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

if TYPE_CHECKING:
    from gateway.ports import PipelineRun, PipelineServer
    from gateway.settings import KubeflowSettings

__all__ = ["PipelineServerMaker", "cluster_options", "run_pipeline"]

PipelineServerMaker = Callable[["KubeflowSettings"], "PipelineServer"]

_INTERRUPTED = 130
_CA_FOLDER = "/etc/understudy/ca"
"""Where the pipeline's pods have the authorities of ``kubeflow.trusted_ca_config_map``."""
_QUIET = frozenset({"executor", "root"})
"""Nodes of the cluster's own beside the tasks; so are those that end in ``-driver``."""

_OPTIONS = (
    click.option(
        "--config",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        envvar="UNDERSTUDY_CONFIG",
        help="A YAML file with settings, for its section `kubeflow`.",
    ),
    click.option("--endpoint", metavar="URL", help="Of Kubeflow Pipelines; kubeflow.url."),
    click.option("--bucket", metavar="NAME", help="The bucket with the documents."),
    click.option("--prefix", metavar="PREFIX", help="Of the keys that are wanted."),
    click.option("--namespace", metavar="NAME", help="Of the experiment; kubeflow.namespace."),
    click.option("--experiment", metavar="NAME", help="kubeflow.experiment."),
    click.option(
        "--parallelism",
        type=click.IntRange(1, 1000),
        help="Turns of the loop that run at once; kubeflow.parallelism.",
    ),
    click.option(
        "--token-file",
        type=click.Path(exists=True, dir_okay=False),
        help="With a bearer token; kubeflow.token_file.",
    ),
    click.option(
        "--ca-file",
        type=click.Path(exists=True, dir_okay=False),
        help="Authorities to trust; kubeflow.ca_file.",
    ),
    click.option("--follow", metavar="RUN", help="Follow this run and start none."),
    click.option(
        "--wait/--no-wait", default=None, help="Whether to follow the run.  [default: wait]"
    ),
)


def cluster_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that hold with ``--on kubeflow``."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def run_pipeline(
    server_of: PipelineServerMaker,
    options: Mapping[str, Any],
    *,
    store: str | None,
    attributes: Mapping[str, Any],
    embedding_model: str | None,
    chunking: Mapping[str, Any] | None,
) -> None:
    """Exits with 1 where the run fails, and with 130 after Ctrl-C, which leaves it going."""
    from gateway.configuration import load_settings
    from gateway.ports import PipelineServerFailed
    from gateway.settings import SettingsError

    try:
        settings = _with(load_settings(options["config"]).kubeflow, options)
    except SettingsError as error:
        raise click.ClickException(str(error)) from None
    arguments: dict[str, Any] = {}
    if options["follow"] is None:
        arguments = _arguments(settings, options, store, attributes, embedding_model, chunking)
    followed: list[str] = []

    async def whole() -> PipelineRun | None:
        server = server_of(settings)
        try:
            run_id = options["follow"]
            if run_id is None:
                run = await server.start(
                    _name(options),
                    arguments,
                    experiment=settings.experiment,
                    parallelism=settings.parallelism,
                )
                run_id = run.id
                click.echo(f"run {run_id} ({run.name}) was started")
            if options["wait"] is False:
                return None
            followed.append(run_id)
            return await _follow(server, run_id, settings.poll_seconds)
        finally:
            await server.aclose()

    try:
        run = asyncio.run(whole())
    except KeyboardInterrupt:
        click.echo(f"Interrupted.{_goes_on(followed)}", err=True)
        sys.exit(_INTERRUPTED)
    except PipelineServerFailed as error:
        raise click.ClickException(f"{error.message}{_goes_on(followed)}") from None
    if run is not None:
        _conclude(run)


async def _follow(server: PipelineServer, run_id: str, seconds: float) -> PipelineRun:
    """Print what changes, until the run is over."""
    shown: dict[str, str] = {}
    while True:
        run = await server.run(run_id)
        for name, states in _by_name(run).items():
            text = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
            if shown.get(name) != text:
                shown[name] = text
                click.echo(f"{name}: {text}")
        if shown.get("") != run.state:
            shown[""] = run.state
            click.echo(f"run: {run.state}")
        if run.is_over:
            return run
        await asyncio.sleep(seconds)


def _by_name(run: PipelineRun) -> dict[str, Counter[str]]:
    """The states of the tasks; a task in a loop has as many as it has turns."""
    found: dict[str, Counter[str]] = {}
    for task in run.tasks:
        if task.name and task.name not in _QUIET and not task.name.endswith("-driver"):
            found.setdefault(task.name, Counter())[task.state] += 1
    return found


def _conclude(run: PipelineRun) -> None:
    if run.state in ("SUCCEEDED", "SKIPPED"):
        return
    click.echo(f"The run {run.id} has ended: {run.state}.{_more(run.error)}", err=True)
    for task in run.tasks:
        if task.state == "FAILED" and task.name not in _QUIET:
            pods = f" (pod {', '.join(task.pods)})" if task.pods else ""
            click.echo(f"  {task.name}{pods}:{_more(task.error) or ' failed'}", err=True)
    if any(task.name == "verdict" and task.state == "FAILED" for task in run.tasks):
        click.echo("Some documents failed. The task `report` says which and why.", err=True)
    sys.exit(1)


def _more(message: str | None) -> str:
    return f" {message}" if message else ""


def _goes_on(followed: list[str]) -> str:
    if not followed:
        return ""
    return f" The run goes on. To follow it: understudy ingest --on kubeflow --follow {followed[0]}"


def _with(settings: KubeflowSettings, options: Mapping[str, Any]) -> KubeflowSettings:
    """What is given on the command line wins."""
    given = {
        name: options[name]
        for name in ("namespace", "experiment", "parallelism", "token_file", "ca_file")
        if options[name] is not None
    }
    if options["endpoint"] is not None:
        given["url"] = options["endpoint"]
    if "token_file" in given:
        given["token"] = None
    return msgspec.structs.replace(settings, **given)


def _arguments(
    settings: KubeflowSettings,
    options: Mapping[str, Any],
    store: str | None,
    attributes: Mapping[str, Any],
    embedding_model: str | None,
    chunking: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The pipeline's."""
    if options["bucket"] is None or store is None:
        raise click.UsageError("--on kubeflow needs --bucket and --store.")
    for name in ("image", "gateway_url"):
        if getattr(settings, name) is None:
            raise click.ClickException(f"kubeflow.{name}: needed to start a run")
    sizes = (chunking or {}).get("static", {})
    ca_file = ""
    if settings.trusted_ca_config_map is not None:
        ca_file = f"{_CA_FOLDER}/{settings.trusted_ca_key}"
    return {
        "gateway": settings.gateway_url,
        "bucket": options["bucket"],
        "store": store,
        "prefix": options["prefix"] or "",
        "s3_endpoint": settings.s3_endpoint or "",
        "s3_region": settings.s3_region or "",
        "embedding_model": embedding_model or "",
        "chunk_size": sizes.get("max_chunk_size_tokens", 0),
        "chunk_overlap": sizes.get("chunk_overlap_tokens", -1),
        "documents_per_task": settings.documents_per_task,
        "attributes": dict(attributes),
        "ca_file": ca_file,
        "traceparent": os.environ.get("TRACEPARENT", ""),
    }


def _name(options: Mapping[str, Any]) -> str:
    """A new one each time, by which a run that may have been started is found."""
    time = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    what = f"{options['bucket']}/{options['prefix'] or ''}"[:100]
    return f"ingest {what} {time} {secrets.token_hex(3)}"
