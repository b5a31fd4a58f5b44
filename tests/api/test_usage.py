"""``GET /v1/usage``, as OpenAI's SDK and a spreadsheet read it."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from openai.types.admin.organization import UsageCompletionsResponse

from gateway.database.engine import Database
from gateway.usage.repository import Amounts, UsageFilter, UsageRepository
from gateway.usage.service import UsageService
from tests.support.callers import TrustingGateway
from tests.support.upstream import FakeVllm

pytestmark = pytest.mark.anyio

HOUR, DAY = 3600, 86400
MIDNIGHT = int(time.time()) // DAY * DAY
PAST = MIDNIGHT - 10 * DAY


def used(hour: int, project: str = "red", key: str = "", model: str = "granite") -> Any:
    """One request of two and three tokens, in this hour of a day that is over."""
    return {(PAST + hour * HOUR, project, key, model, "chat"): Amounts(1, 0, 0, 2, 3, 1)}


async def record(database: Database, *noted: Any) -> None:
    for one in noted:
        async with database.begin() as session:
            await UsageRepository(session).add(one)


@pytest.fixture
async def gateway(upstream: FakeVllm, tmp_path: Path) -> AsyncIterator[TrustingGateway]:
    async with TrustingGateway(
        discover=[upstream.url], models=["fake-chat"], data_dir=str(tmp_path)
    ) as made:
        yield made


async def ask(gateway: TrustingGateway, scopes: str | None = None, **query: Any) -> Any:
    headers = {"x-test-project": "red"}
    if scopes is not None:
        headers["x-test-scopes"] = scopes
    async with gateway.client(headers=headers) as client:
        answer = await client.get("/v1/usage", params={"start_time": PAST, **query})
    assert answer.status_code == 200, answer.text
    return answer.json()


def results(page: Any) -> list[Any]:
    return [one for bucket in page["data"] for one in bucket["results"]]


async def test_openais_types_take_it(gateway: TrustingGateway):
    """The SDK reads the answer as its own usage of completions."""
    await record(gateway.application.state.database, used(0), used(1, key="key_1"))
    page = await gateway.caller("red").get(
        "/usage",
        cast_to=UsageCompletionsResponse,
        options={"params": {"start_time": PAST, "end_time": PAST + DAY, "group_by": ["model"]}},
    )
    [bucket] = page.data
    assert (bucket.start_time, bucket.end_time) == (PAST, PAST + DAY)
    [result] = bucket.results
    assert result.object == "organization.usage.completions.result"
    assert (result.input_tokens, result.output_tokens) == (4, 6)
    assert (result.input_cached_tokens, result.num_model_requests) == (2, 2)
    assert (result.model, result.project_id) == ("granite", None)
    assert page.has_more is False


async def test_buckets_are_hours_or_days(gateway: TrustingGateway):
    """Empty ones are there too; the end isn't."""
    database = gateway.application.state.database
    await record(database, used(0), used(1), used(25), used(48))
    days = await ask(gateway, end_time=PAST + 2 * DAY)
    assert [len(bucket["results"]) for bucket in days["data"]] == [1, 1]
    assert [one["num_model_requests"] for one in results(days)] == [2, 1]
    hours = await ask(gateway, end_time=PAST + 4 * HOUR, bucket_width="1h")
    assert [len(bucket["results"]) for bucket in hours["data"]] == [1, 1, 0, 0]
    assert hours["data"][1]["start_time"] == PAST + HOUR


async def test_pages_follow_each_other(gateway: TrustingGateway):
    """Every bucket is on exactly one of them."""
    database = gateway.application.state.database
    await record(database, *(used(24 * day) for day in range(5)))
    seen: list[int] = []
    page: dict[str, Any] = {}
    while True:
        found = await ask(gateway, end_time=PAST + 5 * DAY, limit=2, **page)
        seen += [bucket["start_time"] for bucket in found["data"]]
        if not found["has_more"]:
            break
        page = {"page": found["next_page"]}
    assert found["next_page"] is None
    assert seen == [PAST + day * DAY for day in range(5)]


async def test_groups_and_filters(gateway: TrustingGateway):
    """By project, key, model and operation, in any of the ways that clients write lists."""
    await record(
        gateway.application.state.database,
        used(0),
        used(1, key="key_1"),
        used(2, "blue", "key_2"),
        used(3, "blue", "key_2", "llama"),
    )
    found = results(await ask(gateway, group_by=["project_id", "api_key_id"]))
    assert [(one["project_id"], one["api_key_id"], one["num_model_requests"]) for one in found] == [
        ("blue", "key_2", 2),
        ("red", None, 1),
        ("red", "key_1", 1),
    ]
    brackets = results(await ask(gateway, **{"group_by[]": ["model"]}))
    commas = results(await ask(gateway, group_by="model,operation"))
    assert [(one["model"], one["num_model_requests"]) for one in brackets] == [
        ("granite", 3),
        ("llama", 1),
    ]
    assert [one["operation"] for one in commas] == ["chat", "chat"]
    [one] = results(await ask(gateway, models="llama"))
    assert one["num_model_requests"] == 1
    [one] = results(await ask(gateway, api_key_ids=["key_1", "key_2"]))
    assert one["num_model_requests"] == 3
    [one] = results(await ask(gateway, project_ids="blue"))
    assert one["num_model_requests"] == 2


async def test_a_project_sees_its_own(gateway: TrustingGateway):
    """Another's isn't in its sums, and asking for it is a 403."""
    await record(gateway.application.state.database, used(0), used(0, "blue"), used(1, "blue"))
    [one] = results(await ask(gateway, "usage.read"))
    assert one["num_model_requests"] == 1
    [one] = results(await ask(gateway, "usage.read", project_ids="red"))
    assert one["num_model_requests"] == 1
    [one] = results(await ask(gateway, "usage.read admin"))
    assert one["num_model_requests"] == 3
    headers = {"x-test-project": "red", "x-test-scopes": "usage.read"}
    async with gateway.client(headers=headers) as client:
        for form in ("json", "csv"):
            refused = await client.get("/v1/usage", params={"project_ids": "blue", "format": form})
            assert refused.status_code == 403
            assert refused.json()["error"]["param"] == "project_ids"


@pytest.mark.parametrize("by", [{"params": {"format": "csv"}}, {"headers": {"accept": "text/csv"}}])
async def test_all_of_it_is_exported_as_csv(gateway: TrustingGateway, by: dict[str, Any]):
    """Without pages, a line for each group of each bucket, and nothing that is a formula."""
    await record(
        gateway.application.state.database,
        *(used(24 * day, model="=1+1") for day in range(9)),
    )
    query = {"start_time": 0, "end_time": 2**39, "group_by": "model", **by.pop("params", {})}
    async with gateway.client(headers={"x-test-project": "red"}) as client:
        answer = await client.get("/v1/usage", params=query, **by)
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert "usage.csv" in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(rows) == 9
    assert rows[1]["start_time"] == str(PAST + DAY)
    assert {row["model"] for row in rows} == {"'=1+1"}
    assert {(row["input_tokens"], row["num_failed_requests"]) for row in rows} == {("2", "0")}


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("bucket_width=1m", "bucket_width"),
        ("limit=0", "limit"),
        ("limit=32", "limit"),
        ("bucket_width=1h&limit=169", "limit"),
        ("group_by=user_id", "group_by"),
        ("start_time=-1", "start_time"),
        ("start_time=9999999999", "start_time"),
        ("end_time=99999999999999999", "end_time"),
        ("page=2", "page"),
        ("models=%00", "models"),
        ("format=xml", "format"),
        ("start_time=now", "start_time"),
    ],
)
async def test_a_bad_question_names_its_parameter(gateway: TrustingGateway, query: str, param: str):
    """In OpenAI's shape."""
    async with gateway.client() as client:
        answer = await client.get(f"/v1/usage?{query}")
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


# --------------------------------------------------------------------- on SQLite and PostgreSQL


async def test_what_is_added_adds_up(database: Database):
    """From several processes, for the same hour."""
    await record(database, used(0), used(0), {**used(0), **used(0, "blue")})
    async with database.read() as session:
        sums = await UsageRepository(session).sums(
            PAST, PAST + DAY, DAY, ["project_id"], UsageFilter(), 10
        )
    assert [(one.group, one.amounts) for one in sums] == [
        (("blue",), Amounts(1, 0, 0, 2, 3, 1)),
        (("red",), Amounts(3, 0, 0, 6, 9, 3)),
    ]


async def test_many_keys_are_written_at_once(database: Database):
    """More than a statement takes."""
    noted = {
        (PAST, "red", f"key_{number}", "granite", "chat"): Amounts(1) for number in range(1200)
    }
    await record(database, noted)
    async with database.read() as session:
        [one] = await UsageRepository(session).sums(PAST, PAST + DAY, DAY, [], UsageFilter(), 10)
    assert one.amounts.requests == 1200


async def test_old_usage_is_forgotten(database: Database):
    """After retention.usage_seconds, and no sooner."""
    await record(database, used(0), used(24 * 9))
    service = UsageService(database, int(time.time()) - PAST - 2 * DAY)
    assert await service.forget() == 1
    assert await service.forget() == 0
    assert await UsageService(database, None).forget() == 0
    async with database.read() as session:
        [one] = await UsageRepository(session).sums(0, 2**40, DAY, [], UsageFilter(), 10)
    assert one.start == PAST + 9 * DAY
