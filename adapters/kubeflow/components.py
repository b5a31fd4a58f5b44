"""The pipeline's tasks: each is a step of ``understudy ingest-step``.

No ``from __future__ import annotations`` here: the KFP SDK reads the annotations themselves.
"""

from kfp import dsl

__all__ = ["IMAGE", "convert", "embed", "insert", "plan", "report", "verdict"]

IMAGE = "understudy:latest"
"""`understudy ingest --on kubeflow` puts `kubeflow.image` in its place."""


def _step(name: str, *arguments: object) -> dsl.ContainerSpec:
    return dsl.ContainerSpec(
        image=IMAGE, command=["understudy", "ingest-step", name], args=list(arguments)
    )


@dsl.container_component
def plan(
    gateway: str,
    bucket: str,
    store: str,
    prefix: str,
    endpoint: str,
    region: str,
    embedding_model: str,
    chunk_size: int,
    chunk_overlap: int,
    documents_per_task: int,
    attributes: dict,
    ca_file: str,
    traceparent: str,
    planned: dsl.Output[dsl.Artifact],
    shards: dsl.OutputPath(list),
):
    return _step(
        "plan",
        "--gateway",
        gateway,
        "--bucket",
        bucket,
        "--store",
        store,
        "--prefix",
        prefix,
        "--endpoint",
        endpoint,
        "--region",
        region,
        "--embedding-model",
        embedding_model,
        "--chunk-size",
        chunk_size,
        "--chunk-overlap",
        chunk_overlap,
        "--documents-per-task",
        documents_per_task,
        "--attributes",
        attributes,
        "--ca-file",
        ca_file,
        "--traceparent",
        traceparent,
        "--plan",
        planned.path,
        "--shards",
        shards,
    )


@dsl.container_component
def convert(
    planned: dsl.Input[dsl.Artifact],
    shard: int,
    bucket: str,
    endpoint: str,
    region: str,
    ca_file: str,
    chunks: dsl.Output[dsl.Artifact],
):
    return _step(
        "convert",
        "--plan",
        planned.path,
        "--shard",
        shard,
        "--bucket",
        bucket,
        "--endpoint",
        endpoint,
        "--region",
        region,
        "--ca-file",
        ca_file,
        "--chunks",
        chunks.path,
    )


@dsl.container_component
def embed(
    planned: dsl.Input[dsl.Artifact],
    chunks: dsl.Input[dsl.Artifact],
    gateway: str,
    ca_file: str,
    traceparent: str,
    vectors: dsl.Output[dsl.Artifact],
):
    return _step(
        "embed",
        "--plan",
        planned.path,
        "--chunks",
        chunks.path,
        "--gateway",
        gateway,
        "--ca-file",
        ca_file,
        "--traceparent",
        traceparent,
        "--vectors",
        vectors.path,
    )


@dsl.container_component
def insert(
    planned: dsl.Input[dsl.Artifact],
    vectors: dsl.Input[dsl.Artifact],
    gateway: str,
    bucket: str,
    endpoint: str,
    region: str,
    ca_file: str,
    traceparent: str,
    outcome: dsl.OutputPath(str),
):
    return _step(
        "insert",
        "--plan",
        planned.path,
        "--vectors",
        vectors.path,
        "--gateway",
        gateway,
        "--bucket",
        bucket,
        "--endpoint",
        endpoint,
        "--region",
        region,
        "--ca-file",
        ca_file,
        "--traceparent",
        traceparent,
        "--outcome",
        outcome,
    )


@dsl.container_component
def report(
    planned: dsl.Input[dsl.Artifact],
    outcomes: list,
    summary: dsl.Output[dsl.Markdown],
    failed: dsl.OutputPath(int),
):
    return _step(
        "report",
        "--plan",
        planned.path,
        "--outcomes",
        outcomes,
        "--report",
        summary.path,
        "--failed",
        failed,
    )


@dsl.container_component
def verdict(failed: int):
    return _step("verdict", failed)
