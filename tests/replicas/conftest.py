"""Puts three replicas where the tests' gateway would be."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.s3.server import S3Server
from tests.support.postgres import PostgresServer
from tests.support.replicas import Places, SprayedGateway

HERE = Path(__file__).parent
ALL = "REPLICAS_ALL"
"""Set in the environment: all suites, for both profiles, and with a Milvus server."""

ALWAYS = {"files", "vector_stores", "responses", "conversations", "prompts", "batches"}
"""Of these the tests of one profile are run anyway."""

WITH_KEYWORDS = {
    "tests.api.test_search",
    "tests.api.test_response_file_search",
    "tests.promises.test_deleted_responses_are_gone",
    "tests.promises.test_response_streams_can_be_rejoined",
}
"""What the Milvus server for tests is too old for."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    mine = [item for item in items if HERE in item.path.parents]
    left_out = [item for item in mine if not _belongs(item)]
    if left_out:
        items[:] = [item for item in items if item not in set(left_out)]
        config.hook.pytest_deselected(items=left_out)


def _belongs(item: pytest.Item) -> bool:
    if item.get_closest_marker("one_process") is not None:
        return False
    if "replica" in getattr(item, "fixturenames", ()):  # it brings its own second one
        return False
    if ALL in os.environ:
        return True
    return item.path.stem.removeprefix("test_") in ALWAYS and "llamastack" not in item.name


@pytest.fixture(scope="module", autouse=True)
def sprayed(
    request: pytest.FixtureRequest,
    postgres: PostgresServer,
    postgres_template: str,
    s3: S3Server,
    lite: str,
) -> Iterator[None]:
    """The namesake of this module makes such gateways."""
    tests = (one for name, one in vars(request.module).items() if name.startswith("test_"))
    namesake = sys.modules[next(tests).__module__]
    milvus = lite
    if ALL in os.environ and namesake.__name__ not in WITH_KEYWORDS:
        milvus = request.getfixturevalue("milvus_server")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(namesake, "InProcessGateway", SprayedGateway)
        patch.setattr(SprayedGateway, "places", Places(postgres, postgres_template, s3, milvus))
        yield


@pytest.fixture(scope="session")
def lite(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Milvus Lite that the replicas share."""
    return str(tmp_path_factory.mktemp("milvus") / "lite")
