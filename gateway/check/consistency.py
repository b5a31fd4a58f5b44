"""Settings that are right each by itself, and wrong or idle together."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.check.finding import Outcome, failed, fine, warned
from gateway.check.models import Answers, different_dimensions, single_embedding_model
from gateway.check.probe import Probe
from gateway.check.systems import Systems
from gateway.settings import BackendSettings, Settings, backend_of

__all__ = ["probes"]

_PREFIX = "vllm/"
_PATIENCE = 3.0
"""It waits for the servers' answers, which have twice the usual time."""


def probes(systems: Systems, answers: Answers) -> list[Probe]:
    settings = systems.settings

    async def look() -> list[Outcome]:
        found = [*_idle(settings), *_bounds(settings), *_replicas(settings)]
        await answers.complete.wait()
        found += different_dimensions(settings, answers)
        found += single_embedding_model(settings, answers)
        found += _unknown_models(settings, answers)
        return found or [fine("nothing contradicts anything")]

    return [Probe(system="settings", address="-", look=look, patience=_PATIENCE)]


def _idle(settings: Settings) -> Iterator[Outcome]:
    """What is given and has no effect."""
    for setting, backend in _backends(settings):
        if backend.url.startswith("http://") and (backend.ca_file or backend.client_cert):
            yield warned(
                f"{setting} has TLS files and an http:// address, so nothing is encrypted",
                "Write https://, or leave the files out.",
            )
    vectors = settings.vectors
    if vectors.ca_file and (vectors.uri or "").startswith("http://"):
        yield warned(
            "vectors.ca_file has no effect: vectors.uri begins with http://", "Write https://."
        )
    if vectors.token and "://" not in (vectors.uri or ""):
        yield warned("vectors.token has no effect: Milvus Lite has no users", "Leave it out.")
    if settings.objects.ca_file and not settings.objects.secure:
        yield warned("objects.ca_file has no effect: objects.secure is false", "Set it to true.")


def _bounds(settings: Settings) -> Iterator[Outcome]:
    """Bounds of which the smaller one makes the larger one unreachable."""
    timeouts, limits = settings.timeouts, settings.limits
    if timeouts.first_byte > timeouts.total:
        yield warned(
            "timeouts.first_byte is longer than timeouts.total, which ends the call before",
            "Raise timeouts.total.",
        )
    if limits.max_file_bytes > limits.max_upload_bytes:
        yield warned(
            "limits.max_file_bytes is larger than limits.max_upload_bytes",
            "Uploads in parts are for larger files: raise limits.max_upload_bytes.",
        )
    if settings.batches.max_file_bytes > limits.max_file_bytes:
        yield warned(
            "batches.max_file_bytes is larger than limits.max_file_bytes, which refuses the file",
            "Raise limits.max_file_bytes.",
        )


def _replicas(settings: Settings) -> Iterator[Outcome]:
    """A database for many replicas beside stores for one."""
    shared = (settings.database.url or "").startswith("postgresql")
    if settings.limits.store == "memory" and (shared or settings.server.workers > 1):
        yield warned(
            "limits.store is memory, so each process lets in as much as is meant for all of them",
            "Use database or a Redis; fine for one process.",
        )
    if not shared:
        return
    if settings.objects.kind == "disk" and settings.objects.path is None:
        yield warned(
            "the database is PostgreSQL and files are on this replica's own disk",
            "Use objects.kind: minio, or a shared folder in objects.path; fine for one replica.",
        )
    if "://" not in (settings.vectors.uri or ""):
        yield warned(
            "the database is PostgreSQL and vectors are in Milvus Lite, which is for one replica",
            "Name a Milvus server in vectors.uri; fine for one replica.",
        )


def _unknown_models(settings: Settings, answers: Answers) -> Iterator[Outcome]:
    """Settings that name a model which nobody serves."""
    served = {name: answer.kind for answer in answers.servers.values() for name in answer.names}
    known = {*served, *(name for one in settings.models for name in (one.id, *one.aliases))}
    named = {
        "embedding.default_model": settings.embedding.default_model,
        "search.rerank_model": settings.search.rerank_model,
        "search.rewrite_model": settings.search.rewrite_model,
        **{
            f"moderation.models.{index}.model": one.model
            for index, one in enumerate(settings.moderation.models)
        },
    }
    if settings.kserve.enabled:
        return  # whose models come and go
    for setting, name in named.items():
        if name is not None and name.removeprefix(_PREFIX) not in known:
            yield failed(
                f"{setting} names '{name}', and no server that answered has it",
                f"Correct it; there are: {', '.join(sorted(known)) or 'none'}.",
            )
    default = settings.embedding.default_model
    kind = served.get((default or "").removeprefix(_PREFIX))
    if kind is not None and kind != "embedding":
        yield failed(
            f"embedding.default_model names '{default}', which is for {kind}",
            "Name an embedding model.",
        )


def _backends(settings: Settings) -> Iterator[tuple[str, BackendSettings]]:
    for index, entry in enumerate(settings.discover):
        yield f"discover.{index}", backend_of(entry)
    for index, model in enumerate(settings.models):
        for position, backend in enumerate(model.backends):
            yield f"models.{index}.backends.{position}", backend
