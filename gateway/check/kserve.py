"""KServe: each namespace is listed as the gateway would."""

from __future__ import annotations

import asyncio
import itertools

from gateway.check.finding import Outcome, failed, fine, shown, warned
from gateway.check.models import look_at
from gateway.check.probe import Probe
from gateway.check.systems import KServeNamespace, Systems
from gateway.settings import ModelSettings

__all__ = ["probes"]

_MOST_NAMES = 8
_MOST_MODELS = 50
_AT_ONCE = 8
_PATIENCE = 4.0
"""Its models are asked as well, some at a time."""


def probes(systems: Systems) -> list[Probe]:
    settings = systems.settings.kserve
    if not settings.enabled:
        return []
    address = shown(settings.api_server) if settings.api_server else "the pod's cluster"

    return [
        Probe(system="kserve", address=address, look=lambda: _look(systems), patience=_PATIENCE)
    ]


async def _look(systems: Systems) -> list[Outcome]:
    """The namespaces, and then the models in them as if the configuration named them."""
    namespaces = await systems.kserve()
    places = asyncio.Semaphore(_AT_ONCE)

    async def look_at_one(namespace: str, model: ModelSettings) -> list[Outcome]:
        async with places:
            return await look_at(systems, model, f"the InferenceService in {namespace}: its")

    asked = [(one.namespace, model) for one in namespaces for model in one.models][:_MOST_MODELS]
    models = await asyncio.gather(*(look_at_one(*one) for one in asked))
    return [*(_outcome(one) for one in namespaces), *itertools.chain.from_iterable(models)]


def _outcome(one: KServeNamespace) -> Outcome:
    place = f"namespace {one.namespace}"
    if one.problem is not None:
        return failed(f"{place}: {one.problem}", _mend(one))
    several = "s" if one.services != 1 else ""
    ready = list(dict.fromkeys(model.id for model in one.models))
    said = f"{place}: {one.services} InferenceService{several}"
    if not ready:
        return warned(
            f"{said}, none of them ready",
            "See `oc get inferenceservice`, and kserve.label_selector for what it leaves out.",
        )
    more = f" and {len(ready) - _MOST_NAMES} more" if len(ready) > _MOST_NAMES else ""
    return fine(f"{said}, ready are: {', '.join(ready[:_MOST_NAMES])}{more}")


def _mend(one: KServeNamespace) -> str:
    match one.status:
        case 401:
            return "Renew the token in kserve.token_file, or mount the service account's."
        case 403:
            return (
                "Give the service account a Role with get, list and watch on "
                "inferenceservices.serving.kserve.io in this namespace, and a RoleBinding."
            )
        case 404:
            return "Install KServe, or set kserve.enabled to false: it isn't in this cluster."
    return "Compare kserve.api_server, and kserve.ca_file with who signed its certificate."
