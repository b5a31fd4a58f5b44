"""The ingestion pipeline, written with the KFP SDK and compiled into ``pipeline.yaml``.

    pip install 'understudy-gateway[kubeflow]'
    python -m adapters.kubeflow.pipeline

Every task is a container of the product's own image that runs ``understudy ingest-step``: nothing
is installed while it runs, so the cluster needs no internet and the image no KFP SDK. Nothing else
imports this module; a run is started from the YAML. As in ``components``, annotations are real.
"""

import sys
from pathlib import Path

from kfp import compiler, dsl, kubernetes

from adapters.kubeflow.components import convert, embed, insert, plan, report, verdict
from adapters.kubeflow.files import PIPELINE

__all__ = ["compile_pipeline", "ingestion"]

_PARALLELISM = 4
_RETRIES = 3
_S3_SECRET, _GATEWAY_SECRET, _CA_CONFIG_MAP = (
    "understudy-s3",
    "understudy-gateway",
    "understudy-trusted-ca",
)
_S3_KEYS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_S3_ENDPOINT",
    "AWS_DEFAULT_REGION",
)


def _set_up(task: dsl.PipelineTask, *, s3: bool, gateway: bool) -> None:
    """Every step may be run again, and none may be taken from a cache: what it reads lies in the
    bucket and the store, not in its inputs.
    """
    task.set_caching_options(enable_caching=False)
    task.set_retry(num_retries=_RETRIES, backoff_duration="20s", backoff_factor=2.0)
    if s3:
        kubernetes.use_secret_as_env(
            task, _S3_SECRET, {key: key for key in _S3_KEYS}, optional=True
        )
    if gateway:
        kubernetes.use_secret_as_env(
            task, _GATEWAY_SECRET, {"OPENAI_API_KEY": "OPENAI_API_KEY"}, optional=True
        )
    if s3 or gateway:
        kubernetes.use_config_map_as_volume(
            task, _CA_CONFIG_MAP, mount_path="/etc/understudy/ca", optional=True
        )


@dsl.pipeline(
    name="understudy-ingestion",
    description="Documents of a bucket into a vector store of the gateway.",
)
def ingestion(
    gateway: str,
    bucket: str,
    store: str,
    prefix: str = "",
    s3_endpoint: str = "",
    s3_region: str = "",
    embedding_model: str = "",
    chunk_size: int = 0,
    chunk_overlap: int = -1,
    documents_per_task: int = 20,
    attributes: dict = {},  # noqa: B006  (the SDK copies it into the pipeline)
    ca_file: str = "",
    traceparent: str = "",
):
    """List the bucket; convert, embed and insert in parallel; report.

    Args:
        gateway: The gateway's API as pods reach it, ending in /v1.
        bucket: The bucket's name.
        store: The vector store, by name or id; one of that name is made where there is none.
        prefix: Of the keys that are wanted.
        s3_endpoint: A URL; AWS_S3_ENDPOINT of the secret where it is empty.
        s3_region: AWS_DEFAULT_REGION of the secret where it is empty.
        embedding_model: For a store that is made.
        chunk_size: In tokens; 0 for what fits the embedding model.
        chunk_overlap: In tokens; -1 for half of the size.
        documents_per_task: How many documents a turn of the loop has.
        attributes: Of every document.
        ca_file: Authorities to trust besides the system's.
        traceparent: Of the trace that the run belongs to.
    """
    planned = plan(
        gateway=gateway,
        bucket=bucket,
        store=store,
        prefix=prefix,
        endpoint=s3_endpoint,
        region=s3_region,
        embedding_model=embedding_model,
        chunk_size=chunk_size,
        chunk_overlap=chunk_overlap,
        documents_per_task=documents_per_task,
        attributes=attributes,
        ca_file=ca_file,
        traceparent=traceparent,
    )
    _set_up(planned, s3=True, gateway=True)
    with dsl.ParallelFor(planned.outputs["shards"], parallelism=_PARALLELISM) as shard:
        converted = convert(
            planned=planned.outputs["planned"],
            shard=shard,
            bucket=bucket,
            endpoint=s3_endpoint,
            region=s3_region,
            ca_file=ca_file,
        )
        _set_up(converted, s3=True, gateway=False)
        converted.set_cpu_request("1").set_memory_request("2Gi").set_memory_limit("6Gi")
        embedded = embed(
            planned=planned.outputs["planned"],
            chunks=converted.outputs["chunks"],
            gateway=gateway,
            ca_file=ca_file,
            traceparent=traceparent,
        )
        _set_up(embedded, s3=False, gateway=True)
        inserted = insert(
            planned=planned.outputs["planned"],
            vectors=embedded.outputs["vectors"],
            gateway=gateway,
            bucket=bucket,
            endpoint=s3_endpoint,
            region=s3_region,
            ca_file=ca_file,
            traceparent=traceparent,
        )
        _set_up(inserted, s3=True, gateway=True)
    reported = report(
        planned=planned.outputs["planned"], outcomes=dsl.Collected(inserted.outputs["outcome"])
    )
    _set_up(reported, s3=False, gateway=False)
    ended = verdict(failed=reported.outputs["failed"])
    ended.set_caching_options(enable_caching=False)


def compile_pipeline(to: Path) -> None:
    compiler.Compiler().compile(ingestion, package_path=str(to))


if __name__ == "__main__":
    compile_pipeline(Path(sys.argv[1]) if len(sys.argv) > 1 else PIPELINE)
