"""A place outside the configuration that knows of models and of the servers that run them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from gateway.settings import ModelSettings

__all__ = ["BackendSource"]


class BackendSource(Protocol):
    """One such place, for example a Kubernetes cluster's InferenceServices.

    It gives models as the section ``models`` of the configuration would; their ids, aliases,
    weights, priorities, credentials and TLS files are its own to say.
    """

    name: str
    """For people, and the key under which its models are kept: ``kserve``."""

    def watch(self) -> AsyncIterator[Sequence[ModelSettings]]:
        """All of its models, again whenever something about them has changed.

        Each value replaces the one before. A source that has lost its connection keeps silent and
        tries again by itself, so that what it said last stays true; one that raises is logged and
        watched anew after a while. Cancelled when the gateway ends.
        """
