"""``understudy ingest-step``: the steps of the ingestion pipeline, as its tasks run them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import click

if TYPE_CHECKING:
    from gateway.ingestion.remote_store import RemoteStore
    from gateway.ports import Bucket, DocumentConverter

__all__ = ["BucketMaker", "StepAdapters", "step_commands"]

_FILE = click.Path(dir_okay=False, path_type=Path)
_ENDPOINT, _REGION = "AWS_S3_ENDPOINT", "AWS_DEFAULT_REGION"
"""As the secrets of OpenShift AI's connections have them."""


class BucketMaker(Protocol):
    def __call__(
        self,
        endpoint: str,
        bucket: str,
        *,
        access_key: str | None,
        secret_key: str | None,
        region: str | None,
        ca_file: str | None,
    ) -> Bucket: ...


class StepAdapters(NamedTuple):
    """What makes the adapters, only for the step that needs one."""

    bucket: BucketMaker
    converter: Callable[[], DocumentConverter]


def _gateway_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--gateway", required=True, help="The gateway's API, ending in /v1."),
        click.option("--traceparent", default=""),
        _ca_file_option,
    ):
        command = option(command)
    return command


def _bucket_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--endpoint", default="", help=f"URL; {_ENDPOINT} where it is empty."),
        click.option("--region", default="", help=f"{_REGION} where it is empty."),
        click.option("--bucket", required=True),
        _ca_file_option,
    ):
        command = option(command)
    return command


def _ca_file_option(command: Any) -> Any:
    """Once, where a step has both the gateway's options and the bucket's."""
    known = {one.name for one in getattr(command, "__click_params__", [])}
    if "ca_file" in known:
        return command
    return click.option("--ca-file", default="", help="Authorities to trust besides.")(command)


def _shard_options(command: Callable[..., None]) -> Callable[..., None]:
    command = click.option("--shard", required=True, type=int)(command)
    return click.option("--plan", required=True, type=_FILE)(command)


@click.command("plan")
@click.pass_obj
@_gateway_options
@_bucket_options
@click.option("--store", required=True)
@click.option("--prefix", default="")
@click.option("--embedding-model", default="")
@click.option("--chunk-size", type=int, default=0, help="0 for what fits the model.")
@click.option("--chunk-overlap", type=int, default=-1, help="-1 for half of it.")
@click.option("--documents-per-task", type=click.IntRange(1), default=20)
@click.option("--attributes", default="{}", help="JSON.")
@click.option("--plan", "to", required=True, type=_FILE)
@click.option("--shards", required=True, type=_FILE)
def _plan(adapters: StepAdapters, **options: Any) -> None:
    """Compare the bucket with the store, and say what is to be done."""
    from gateway.ingestion.bulk_plan import BulkPlanner, Sizes
    from gateway.ingestion.bulk_records import write_plan

    sizes = Sizes(
        size=options["chunk_size"] or None,
        overlap=options["chunk_overlap"] if options["chunk_overlap"] >= 0 else None,
    )
    attributes = _attributes(options["attributes"])

    async def work(stack: AsyncExitStack) -> None:
        source = await _closing(stack, _bucket(adapters, options))
        store = await stack.enter_async_context(_store(options))
        if not await store.find(options["store"]):
            await store.create(options["store"], options["embedding_model"] or None)
        planner = BulkPlanner(
            source,
            store,
            bucket_name=options["bucket"],
            per_shard=options["documents_per_task"],
        )
        made, documents = await planner.make(options["prefix"], sizes, attributes)
        write_plan(options["to"], made, documents)
        _write(options["shards"], json.dumps(list(range(made.shards))))
        click.echo(f"{made.documents} to bring in, {made.unchanged} unchanged")

    _run(work)


@click.command("convert")
@click.pass_obj
@_bucket_options
@_shard_options
@click.option("--chunks", required=True, type=_FILE)
def _convert(adapters: StepAdapters, **options: Any) -> None:
    """Download, convert and cut the documents of a shard."""
    from gateway.ingestion.bulk_records import read_plan
    from gateway.ingestion.bulk_steps import convert_documents

    async def work(stack: AsyncExitStack) -> None:
        source = await _closing(stack, _bucket(adapters, options))
        converter = await _closing(stack, adapters.converter())
        plan, documents = read_plan(options["plan"], options["shard"])
        await convert_documents(plan, documents, source, converter, options["chunks"])

    _run(work)


@click.command("embed")
@_gateway_options
@click.option("--plan", required=True, type=_FILE)
@click.option("--chunks", required=True, type=_FILE)
@click.option("--vectors", required=True, type=_FILE)
def _embed(**options: Any) -> None:
    """Have the gateway make the vectors of a shard's chunks."""
    from gateway.ingestion.bulk_records import read_plan
    from gateway.ingestion.bulk_steps import embed_documents

    async def work(stack: AsyncExitStack) -> None:
        store = await stack.enter_async_context(_store(options))
        plan, _ = read_plan(options["plan"])
        await embed_documents(plan, options["chunks"], store, options["vectors"])

    _run(work)


@click.command("insert")
@click.pass_obj
@_gateway_options
@_bucket_options
@click.option("--plan", required=True, type=_FILE)
@click.option("--vectors", required=True, type=_FILE)
@click.option("--outcome", required=True, type=_FILE)
def _insert(adapters: StepAdapters, **options: Any) -> None:
    """Put a shard's documents and chunks into the store."""
    import msgspec

    from gateway.ingestion.bulk_records import read_plan
    from gateway.ingestion.bulk_steps import insert_documents

    async def work(stack: AsyncExitStack) -> None:
        source = await _closing(stack, _bucket(adapters, options))
        store = await stack.enter_async_context(_store(options))
        plan, _ = read_plan(options["plan"])
        store.id = plan.store_id
        outcome, failures = await insert_documents(plan, options["vectors"], source, store)
        _write(options["outcome"], msgspec.json.encode(outcome).decode())
        click.echo(f"{outcome.done} brought in, {outcome.failed} failed")
        for one in failures:
            click.echo(f"  {one.key}: {one.why}")

    _run(work)


@click.command("report")
@click.option("--plan", required=True, type=_FILE)
@click.option("--outcomes", required=True, help="A JSON list of what the inserts have said.")
@click.option("--report", "to", required=True, type=_FILE)
@click.option("--failed", required=True, type=_FILE)
def _report(plan: Path, outcomes: str, to: Path, failed: Path) -> None:
    """Say what has come of it all."""
    from gateway.ingestion import bulk_report
    from gateway.ingestion.bulk_records import read_outcome, read_plan

    whole, _ = read_plan(plan)
    said = [read_outcome(one) for one in json.loads(outcomes)]
    text = bulk_report.report(whole, said)
    _write(to, text)
    _write(failed, str(bulk_report.failed_documents(whole, said)))
    click.echo(text)


@click.command("verdict")
@click.argument("failed", type=int)
def _verdict(failed: int) -> None:
    """Fail where documents have failed, so that the run shows it."""
    if failed:
        click.echo(f"Failed documents: {failed}. The task `report` says which and why.", err=True)
        sys.exit(1)


def step_commands(adapters: StepAdapters) -> click.Group:
    return click.Group(
        "ingest-step",
        commands=[_plan, _convert, _embed, _insert, _report, _verdict],
        context_settings={"obj": adapters},
        help="""Do one step of the ingestion pipeline; its tasks in Kubeflow Pipelines call this.

        Credentials come from the environment: OPENAI_API_KEY for the gateway, AWS_ACCESS_KEY_ID
        and AWS_SECRET_ACCESS_KEY for the bucket.
        """,
    )


def _bucket(adapters: StepAdapters, options: dict[str, Any]) -> Bucket:
    endpoint = options["endpoint"] or os.environ.get(_ENDPOINT, "")
    if "://" not in endpoint and endpoint:
        endpoint = f"https://{endpoint}"
    return adapters.bucket(
        endpoint,
        options["bucket"],
        access_key=os.environ.get("AWS_ACCESS_KEY_ID"),
        secret_key=os.environ.get("AWS_SECRET_ACCESS_KEY"),
        region=options["region"] or os.environ.get(_REGION) or None,
        ca_file=options["ca_file"] or None,
    )


def _store(options: dict[str, Any]) -> RemoteStore:
    from gateway.ingestion.remote_store import RemoteStore

    return RemoteStore(
        options["gateway"],
        os.environ.get("OPENAI_API_KEY"),
        ca_file=options["ca_file"] or None,
        traceparent=options["traceparent"] or None,
    )


async def _closing(stack: AsyncExitStack, resource: Any) -> Any:
    stack.push_async_callback(resource.aclose)
    return resource


def _run(work: Callable[[AsyncExitStack], Awaitable[None]]) -> None:
    """Exits with 1 where the step can't be done; the pipeline runs it again then."""
    from gateway.ingestion.remote_store import StoreFailed
    from gateway.ports import BucketFailed

    async def whole() -> None:
        async with AsyncExitStack() as stack:
            await work(stack)

    try:
        asyncio.run(whole())
    except (BucketFailed, StoreFailed, OSError) as error:
        raise click.ClickException(str(error)) from None


def _attributes(text: str) -> dict[str, Any]:
    from gateway.ingestion.bulk_plan import OWN_ATTRIBUTES

    try:
        given = json.loads(text or "{}")
    except ValueError:
        given = None
    if not isinstance(given, dict) or any(key in given for key in OWN_ATTRIBUTES):
        raise click.BadParameter(
            f"expected a JSON object without {', '.join(OWN_ATTRIBUTES)}.",
            param_hint="--attributes",
        )
    return given


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
