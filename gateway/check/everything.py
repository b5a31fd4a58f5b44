"""Every look there is, in the order of the table.

A slice with a system of its own adds a module with ``probes(systems)`` and its line here.
"""

from __future__ import annotations

from gateway.check import (
    consistency,
    counters,
    database,
    documents,
    files,
    identity,
    kserve,
    models,
    objects,
    outside,
    telemetry,
    vectors,
)
from gateway.check.probe import Probe
from gateway.check.systems import Systems

__all__ = ["probes_of"]

_SOURCES = (
    identity.probes,
    kserve.probes,
    files.probes,
    database.probes,
    counters.probes,
    objects.probes,
    vectors.probes,
    documents.probes,
    outside.probes,
    telemetry.probes,
)


def probes_of(systems: Systems) -> list[Probe]:
    """For everything that these settings name."""
    answers = models.Answers()
    return [
        *consistency.probes(systems, answers),
        *models.probes(systems, answers),
        *(probe for source in _SOURCES for probe in source(systems)),
    ]
