"""KServe: each namespace is listed as the gateway would."""

from __future__ import annotations

from gateway.check.finding import Outcome, failed, fine, shown, warned
from gateway.check.probe import Probe
from gateway.check.systems import KServeNamespace, Systems

__all__ = ["probes"]

_MOST_NAMES = 8


def probes(systems: Systems) -> list[Probe]:
    settings = systems.settings.kserve
    if not settings.enabled:
        return []
    address = shown(settings.api_server) if settings.api_server else "the pod's cluster"

    async def look() -> list[Outcome]:
        return [_outcome(one) for one in await systems.kserve()]

    return [Probe(system="kserve", address=address, look=look)]


def _outcome(one: KServeNamespace) -> Outcome:
    place = f"namespace {one.namespace}"
    if one.problem is not None:
        return failed(f"{place}: {one.problem}", _mend(one))
    if not one.models:
        return warned(
            f"{place}: {one.services} InferenceServices, none of them ready",
            "See `oc get inferenceservice`, and kserve.label_selector for what it leaves out.",
        )
    names = ", ".join(one.models[:_MOST_NAMES])
    more = f" and {len(one.models) - _MOST_NAMES} more" if len(one.models) > _MOST_NAMES else ""
    verb = "is" if len(one.models) == 1 else "are"
    several = "s" if one.services != 1 else ""
    return fine(
        f"{place}: {one.services} InferenceService{several}, of which {len(one.models)} {verb} "
        f"ready: {names}{more}"
    )


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
