"""``understudy ingest``: folders, or a bucket, into a vector store."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from gateway.ingestion.pipeline_command import cluster_options, run_pipeline

if TYPE_CHECKING:
    from gateway.ingestion.folder import LocalFile
    from gateway.ingestion.pipeline_command import PipelineServerMaker
    from gateway.ingestion.upload_folder import Action, Outcome

__all__ = ["ingest"]

_DONE: dict[Action, str] = {
    "add": "added",
    "replace": "replaced",
    "retry": "tried again",
    "chunk": "chunked anew",
    "describe": "attributes changed",
    "wait": "waited for",
    "skip": "unchanged",
}
_INTERRUPTED = 130
_SET_FOR_EACH = ("path", "sha256", "source", "etag", "chunking", "chunks")
"""Attributes of our own: the first two are of files, the others of documents of a bucket."""


@click.command()
@click.pass_obj
@click.argument(
    "paths",
    nargs=-1,
    metavar="PATH...",
    type=click.Path(exists=True, path_type=Path),
)
@click.option(
    "--on",
    type=click.Choice(["gateway", "kubeflow"]),
    default="gateway",
    show_default=True,
    help="Send files to the gateway, or have Kubeflow Pipelines ingest a bucket.",
)
@click.option("--store", metavar="NAME", help="The vector store, by name or id.")
@click.option(
    "--base-url",
    default="http://127.0.0.1:8321/v1",
    show_default=True,
    envvar="OPENAI_BASE_URL",
    metavar="URL",
    help="The gateway's API.",
)
@click.option("--api-key", envvar="OPENAI_API_KEY", metavar="KEY", help="Also OPENAI_API_KEY.")
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    help="How many files are on their way at once.",
)
@click.option(
    "--attribute",
    "attributes",
    multiple=True,
    metavar="KEY=VALUE",
    help="An attribute for every file; numbers, true and false are taken as such. May be repeated.",
)
@click.option("--embedding-model", metavar="MODEL", help="For a store that is made.")
@click.option("--chunk-size", type=click.IntRange(100, 4096), help="Tokens in a chunk, at most.")
@click.option("--overlap", type=click.IntRange(0, 2048), help="Tokens that neighbours share.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@cluster_options
def ingest(
    server_of: PipelineServerMaker,
    paths: tuple[Path, ...],
    on: str,
    store: str | None,
    base_url: str,
    api_key: str | None,
    workers: int,
    attributes: tuple[str, ...],
    embedding_model: str | None,
    chunk_size: int | None,
    overlap: int | None,
    dry_run: bool,  # noqa: FBT001  (click passes flags by position)
    **cluster: Any,
) -> None:
    """Upload files and folders into a vector store, which is made where it is missing.

    Run it again after an interruption or when files have changed: what is unchanged is not sent
    again, and what has changed replaces the old one.

    With `--on kubeflow`, start a run of the ingestion pipeline over a bucket, and follow it.
    """
    given = dict(_attribute(one) for one in attributes)
    chunking = _chunking(chunk_size, overlap)
    if on == "kubeflow":
        if paths or dry_run:
            raise click.UsageError("--on kubeflow takes a --bucket; no PATH and no --dry-run.")
        run_pipeline(
            server_of,
            cluster,
            store=store,
            attributes=given,
            embedding_model=embedding_model,
            chunking=chunking,
        )
        return
    _check(paths, store, cluster)
    assert store is not None  # checked
    files = _files(paths)
    if not files:
        click.echo("There are no files to ingest.")
        return
    _upload(files, store, base_url, api_key, workers, given, embedding_model, chunking, dry_run)


def _check(paths: tuple[Path, ...], store: str | None, cluster: Mapping[str, Any]) -> None:
    """What `--on gateway` needs, and what it has no use for."""
    if not paths:
        raise click.UsageError("Missing argument 'PATH...'.")
    if store is None:
        raise click.UsageError("Missing option '--store'.")
    for name, value in cluster.items():
        if value is not None and name != "config":
            raise click.UsageError(f"--{name.replace('_', '-')} is for --on kubeflow.")


def _files(paths: tuple[Path, ...]) -> list[LocalFile]:
    from gateway.ingestion.folder import find_files

    try:
        return find_files(paths)
    except ValueError as error:
        raise click.ClickException(str(error)) from None


def _upload(
    files: list[LocalFile],
    store: str,
    base_url: str,
    api_key: str | None,
    workers: int,
    attributes: Mapping[str, Any],
    embedding_model: str | None,
    chunking: Mapping[str, Any] | None,
    dry_run: bool,  # noqa: FBT001  (as click has passed it)
) -> None:
    """Exits with 1 where a file failed, and with 130 after Ctrl-C."""
    # Here, so that other commands start without them.
    from gateway.ingestion.bars import Bars
    from gateway.ingestion.remote_store import RemoteStore, StoreFailed
    from gateway.ingestion.upload_folder import FolderUpload, Outcome

    async def run() -> list[Outcome]:
        async with RemoteStore(base_url, api_key) as remote:
            there = await remote.find(store)
            if not there and not dry_run:
                await remote.create(store, embedding_model)
            with Bars(files, quiet=dry_run) as bars:
                upload = FolderUpload(
                    remote, bars, attributes=attributes, chunking=chunking, workers=workers
                )
                if there:
                    await upload.look()
                if dry_run:
                    return [Outcome(file=one, action=await upload.plan(one)) for one in files]
                return await upload.run(files)

    try:
        outcomes = asyncio.run(run())
    except KeyboardInterrupt:
        click.echo("Interrupted. Run the same command again to go on.", err=True)
        sys.exit(_INTERRUPTED)
    except StoreFailed as error:
        raise click.ClickException(str(error)) from None
    if dry_run:
        for one in outcomes:
            click.echo(f"{one.action:9} {one.file.name}")
        return
    _summarise(outcomes)


def _summarise(outcomes: list[Outcome]) -> None:
    """Exits with 1 where a file failed."""
    failed = sorted((one for one in outcomes if one.error), key=lambda one: one.file.name)
    counts = Counter(_DONE[one.action] for one in outcomes if not one.error)
    counts["failed"] = len(failed)
    click.echo(", ".join(f"{number} {what}" for what, number in counts.items()))
    for one in failed:
        click.echo(f"  {one.file.path}: {one.error}", err=True)
    if failed:
        sys.exit(1)


def _attribute(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise click.BadParameter(f"'{text}' is not KEY=VALUE.", param_hint="--attribute")
    if key in _SET_FOR_EACH:
        raise click.BadParameter(f"'{key}' is set for each file.", param_hint="--attribute")
    try:
        parsed = msgspec.json.decode(value, type=bool | int | float)
    except msgspec.DecodeError:
        return key, value
    return key, parsed


def _chunking(size: int | None, overlap: int | None) -> dict[str, Any] | None:
    if size is None and overlap is None:
        return None
    size = 800 if size is None else size
    overlap = size // 2 if overlap is None else overlap
    if 2 * overlap > size:
        raise click.BadParameter(
            f"{overlap} is more than half of the chunk size, {size}.", param_hint="--overlap"
        )
    static = {"max_chunk_size_tokens": size, "chunk_overlap_tokens": overlap}
    return {"type": "static", "static": static}
