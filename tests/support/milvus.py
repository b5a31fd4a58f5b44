"""Milvus for tests: a real server for each module, or the reason why there is none."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.real.milvus.install import InstallError
from tests.real.milvus.server import MilvusServer, NamespacesNotAllowedError

RUNNING_ALREADY = "UNDERSTUDY_MILVUS_URI"
"""A Milvus that runs before the tests; they make and drop collections `understudy_…` there."""

QUICK = ("proxy.timeTickInterval=50",)
"""Four times as often as by default: what waits for a tick is that much quicker."""


@pytest.fixture(scope="module")
def milvus_server() -> Iterator[str]:
    """The URI of a real Milvus server with an empty data folder.

    It starts in two seconds. Left on for the whole run, it took a quarter of a processor idling.
    """
    if running := os.environ.get(RUNNING_ALREADY):
        yield running
        return
    server = MilvusServer(settings=QUICK)
    try:
        server.start()
    except (InstallError, NamespacesNotAllowedError) as error:
        server.stop()
        pytest.skip(f"no Milvus server can be run here: {error}")
    try:
        yield server.uri
    finally:
        server.stop()
