"""Filters mean the same on every database, and the same as in plain Python."""

from __future__ import annotations

import asyncio
import operator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select
from sqlalchemy.dialects import postgresql

from gateway.database.engine import Database
from gateway.database.tables import AttributeRow, VectorStoreFileRow, VectorStoreRow
from gateway.errors import InvalidRequest
from gateway.vector_stores.filters import compile_filter, read_filter

pytestmark = pytest.mark.anyio

TEXTS = [
    "",
    "a",
    "B",
    "b",
    "Z",
    "aa",
    "ä",
    "z",
    "é",
    "e\u0301",
    "\uffff",
    "\U0001f600",
    "1",
    "%",
    "a b",
]
NUMBERS = [0.0, -0.0, 1.0, 1.5, -3.0, 2**53 + 1, 1e300, 5e-324, 10.0, 9.0]
KEYS = ["k", "K", "other", "file_id", "filename", "ключ", "a'b"]

scalars = st.sampled_from([*TEXTS, *NUMBERS, 1, 0, True, False])
attributes = st.dictionaries(st.sampled_from(KEYS), scalars, max_size=4)
comparisons = st.one_of(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["eq", "ne"]), "key": st.sampled_from(KEYS), "value": scalars}
    ),
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["gt", "gte", "lt", "lte"]),
            "key": st.sampled_from(KEYS),
            "value": scalars.filter(lambda value: not isinstance(value, bool)),
        }
    ),
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["in", "nin"]),
            "key": st.sampled_from(KEYS),
            "value": st.lists(scalars, max_size=3),
        }
    ),
)
filters = st.recursive(
    comparisons,
    lambda inner: st.fixed_dictionaries(
        {"type": st.sampled_from(["and", "or"]), "filters": st.lists(inner, max_size=3)}
    ),
    max_leaves=6,
)


class TestMeaning:
    """The same files are found as by the rules written out in Python."""

    FILES = (
        {},
        {"k": "a", "other": 1.5},
        {"k": "B", "filename": "Z"},
        {"k": 1.0, "file_id": True},
        {"k": "1", "K": "a"},
        {"k": True, "other": "z"},
        {"k": False, "ключ": "ä"},
        {"k": 2.0**53, "a'b": ""},
        {"k": "\U0001f600", "other": -3.0},
        {"k": "\uffff", "other": 0.0},
        {"k": "e\u0301", "file_id": "a"},
        {"filename": 9.0, "other": 10.0},
    )

    @pytest.fixture
    async def stored(self, database: Database) -> Database:
        async with database.begin() as session:
            session.add(_store("vs_1"))
            await session.flush()
            for number, given_attributes in enumerate(self.FILES):
                session.add(_file(number))
                await session.flush()
                for key, value in given_attributes.items():
                    await session.execute(
                        insert(AttributeRow).values(**_attribute(number, key, value))
                    )
        return database

    async def test_sql_agrees_with_python(self, stored: Database) -> None:
        """Every filter finds the files that the written rules find."""
        loop = asyncio.get_running_loop()
        expected = [(_columns(number), one) for number, one in enumerate(self.FILES)]

        @settings(
            max_examples=150,
            deadline=None,
            suppress_health_check=[HealthCheck.function_scoped_fixture],
        )
        @given(filters)
        def check(value: dict[str, Any]) -> None:
            found = asyncio.run_coroutine_threadsafe(_found(stored, value), loop).result(30)
            assert found == {
                columns["id"]
                for columns, given_attributes in expected
                if matches(value, columns, given_attributes)
            }

        await asyncio.to_thread(check)

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ({"type": "eq", "key": "k", "value": 1}, {3}),
            ({"type": "eq", "key": "k", "value": "1"}, {4}),
            ({"type": "eq", "key": "k", "value": True}, {5}),
            ({"type": "gt", "key": "k", "value": "Z"}, {1, 8, 9, 10}),
            ({"type": "ne", "key": "other", "value": "z"}, {0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11}),
            ({"type": "in", "key": "file_id", "value": ["file-4", "a"]}, {4, 10}),
            ({"type": "eq", "key": "file_id", "value": "file-3"}, set()),
            ({"type": "lt", "key": "filename", "value": "name-1"}, {0, 2}),
            ({"type": "and", "filters": []}, set(range(12))),
            ({"type": "or", "filters": []}, set()),
        ],
    )
    async def test_what_is_documented(
        self, stored: Database, value: dict[str, Any], expected: set[int]
    ) -> None:
        """The kinds don't mix, negation takes files without the key, and ids can be filtered."""
        assert await _found(stored, value) == {f"vsf_{number}" for number in expected}


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ([], "filters"),
        ("x", "filters"),
        ({"key": "k", "value": 1}, "filters.type"),
        ({"type": "like", "key": "k", "value": 1}, "filters.type"),
        ({"type": ["eq"], "key": "k", "value": 1}, "filters.type"),
        ({"type": "eq", "value": 1}, "filters.key"),
        ({"type": "eq", "key": "", "value": 1}, "filters.key"),
        ({"type": "eq", "key": 5, "value": 1}, "filters.key"),
        ({"type": "eq", "key": "k" * 257, "value": 1}, "filters.key"),
        ({"type": "eq", "key": "k"}, "filters.value"),
        ({"type": "eq", "key": "k", "value": None}, "filters.value"),
        ({"type": "eq", "key": "k", "value": [1]}, "filters.value"),
        ({"type": "eq", "key": "k", "value": "a\0b"}, "filters.value"),
        ({"type": "gt", "key": "k", "value": True}, "filters.value"),
        ({"type": "gt", "key": "k", "value": 10**400}, "filters.value"),
        ({"type": "in", "key": "k", "value": "a"}, "filters.value"),
        ({"type": "in", "key": "k", "value": [1, {}]}, "filters.value[1]"),
        ({"type": "in", "key": "k", "value": ["v"] * 1001}, "filters.value"),
        ({"type": "and"}, "filters.filters"),
        ({"type": "or", "filters": {}}, "filters.filters"),
        (
            {
                "type": "and",
                "filters": [
                    {"type": "eq", "key": "k", "value": 1},
                    {"type": "or", "filters": [{"type": "in", "key": "k", "value": [None]}]},
                ],
            },
            "filters.filters[1].filters[0].value[0]",
        ),
    ],
)
def test_a_wrong_filter_is_refused_by_its_path(value: Any, param: str) -> None:
    """The error names what is wrong inside the filter."""
    with pytest.raises(InvalidRequest) as refused:
        read_filter(value)
    assert refused.value.param == param
    assert f"'{param}'" in refused.value.message


def test_a_filter_is_bounded() -> None:
    """Neither depth nor number of comparisons can exhaust a database."""
    deep: dict[str, Any] = {"type": "eq", "key": "k", "value": 1}
    for _ in range(16):
        deep = {"type": "and", "filters": [deep]}
    with pytest.raises(InvalidRequest, match="nested 16 deep"):
        read_filter(deep)
    wide = {"type": "or", "filters": [{"type": "eq", "key": "k", "value": 1}] * 201}
    with pytest.raises(InvalidRequest, match="200 comparisons"):
        read_filter(wide)


@pytest.mark.parametrize("value", [None, {}])
def test_no_filter_is_none(value: Any) -> None:
    """Null and an empty object, which LlamaStack's clients send, filter nothing."""
    assert read_filter(value) is None


@pytest.mark.parametrize("key", ["k", "filename"])
def test_strings_are_ordered_by_code_point(key: str) -> None:
    """PostgreSQL is told so: its own order is that of the language it is set up for."""
    read = read_filter({"type": "gt", "key": key, "value": "B"})
    assert read is not None
    compiled = str(compile_filter(read).compile(dialect=postgresql.dialect()))
    assert compiled.count(" > ") == compiled.count('COLLATE "C" > ') > 0


async def test_the_largest_filter_runs(database: Database) -> None:
    """What the limits allow, a database takes."""
    values = [f"v{number}" for number in range(1000)]
    some = [{"type": "nin", "key": "file_id", "value": values}]
    some += [{"type": "gte", "key": "filename", "value": "a"}] * 199
    deep: dict[str, Any] = {"type": "or", "filters": some}
    for _ in range(14):
        deep = {"type": "and", "filters": [deep]}
    assert await _found(database, deep) == set()


# -------------------------------------------------------------------------- the written rules


def matches(
    value: dict[str, Any], columns: dict[str, Any], given_attributes: dict[str, Any]
) -> bool:
    kind = value["type"]
    if kind in ("and", "or"):
        parts = [matches(one, columns, given_attributes) for one in value["filters"]]
        return all(parts) if kind == "and" else any(parts)
    if kind == "ne":
        return not matches({**value, "type": "eq"}, columns, given_attributes)
    if kind == "nin":
        return not matches({**value, "type": "in"}, columns, given_attributes)
    key = value["key"]
    have = given_attributes.get(key, columns.get(key) if key in ("file_id", "filename") else None)
    if have is None:
        return False
    wanted = value["value"] if kind == "in" else [value["value"]]
    compare = {
        "gt": operator.gt,
        "gte": operator.ge,
        "lt": operator.lt,
        "lte": operator.le,
    }.get(kind, operator.eq)
    return any(_kind(have) is _kind(one) and compare(_plain(have), _plain(one)) for one in wanted)


def _kind(value: Any) -> type:
    return bool if isinstance(value, bool) else str if isinstance(value, str) else float


def _plain(value: Any) -> Any:
    return float(value) if _kind(value) is float else value


# -------------------------------------------------------------------------------------------- rows


def _store(store_id: str) -> VectorStoreRow:
    return VectorStoreRow(
        id=store_id,
        project="default",
        sequence=1,
        name=None,
        embedding_model="fake-embedding",
        dimension=8,
        keyword=True,
        provider_id="milvus",
        last_active_at=1,
    )


def _columns(number: int) -> dict[str, Any]:
    file_id = None if number % 5 == 1 else f"file-{number}"
    return {"id": f"vsf_{number}", "file_id": file_id, "filename": f"name-{number}"}


def _file(number: int) -> VectorStoreFileRow:
    return VectorStoreFileRow(
        **_columns(number), project="default", store_id="vs_1", sequence=number, status="completed"
    )


def _attribute(number: int, key: str, value: Any) -> dict[str, Any]:
    kind = {bool: "boolean", str: "text", float: "number"}[_kind(value)]
    return {"attachment_id": f"vsf_{number}", "key": key, "store_id": "vs_1", kind: value}


async def _found(database: Database, value: dict[str, Any]) -> set[str]:
    read = read_filter(value)
    assert read is not None
    async with database.read() as session:
        matching = select(VectorStoreFileRow.id).where(compile_filter(read))
        return set((await session.execute(matching, {"store_id": "vs_1"})).scalars())
