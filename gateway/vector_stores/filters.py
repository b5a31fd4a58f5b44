"""OpenAI's filters on the attributes of files, and what they mean in SQL.

A filter compares one attribute, or joins other filters::

    {"type": "eq", "key": "language", "value": "en"}
    {"type": "and", "filters": [{…}, {…}]}

What holds on every database:

- ``eq``, ``gt``, ``gte``, ``lt``, ``lte`` and ``in`` match a file only if it has the attribute and
  the attribute is of the value's kind: strings compare with strings, numbers with numbers,
  booleans with booleans. ``"1"`` is neither ``1`` nor ``true``.
- ``ne`` and ``nin`` are the exact opposite of ``eq`` and ``in``, so they match a file without the
  attribute as well.
- Strings are ordered by code point, so upper case comes before lower case. Booleans have no order.
  Numbers are compared as 64-bit floating point.
- ``in`` with an empty list matches nothing and ``nin`` everything; so do ``or`` and ``and`` of no
  filters.
- ``file_id`` and ``filename`` may be compared as if they were attributes. A file that has an
  attribute of that name is compared by the attribute.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeGuard, cast

from msgspec import Struct
from sqlalchemy import (
    ColumnElement,
    Select,
    Text,
    and_,
    bindparam,
    false,
    not_,
    or_,
    select,
    true,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.functions import FunctionElement

from gateway.database.tables import AttributeRow, VectorStoreFileRow
from gateway.errors import InvalidRequest

__all__ = ["Comparison", "Compound", "Filter", "compile_filter", "read_filter"]

MAX_DEPTH = 16
MAX_COMPARISONS = 200
MAX_VALUES = 1000
"""In all lists of a filter together."""
MAX_KEY_CHARACTERS = 256

Scalar = str | float | bool
Operator = Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"]

_OPERATORS = ("eq", "ne", "gt", "gte", "lt", "lte", "in", "nin")
_JOINS = ("and", "or")
_ORDERED = frozenset({"gt", "gte", "lt", "lte"})
_LISTS = frozenset({"in", "nin"})
_OPPOSITES = {"ne": "eq", "nin": "in"}


class Comparison(Struct, frozen=True):
    """One attribute against one value, or against several for ``in`` and ``nin``."""

    type: Operator
    key: str
    values: tuple[Scalar, ...]


class Compound(Struct, frozen=True):
    """Other filters, all of which must match (``and``) or one of which (``or``)."""

    type: Literal["and", "or"]
    filters: tuple[Filter, ...]


Filter = Comparison | Compound


def read_filter(value: Any, param: str = "filters") -> Filter | None:
    """A filter as it came in JSON; ``None`` for none, which an empty object is too.

    Raises ``InvalidRequest`` whose ``param`` is the path of what is wrong.
    """
    if value is None or value == {}:
        return None
    return _Reader().read(value, param, 1)


def compile_filter(given: Filter) -> ColumnElement[bool]:
    """The filter as a condition on ``VectorStoreFileRow``, with the parameter ``store_id``."""
    if isinstance(given, Compound):
        parts = [compile_filter(one) for one in given.filters]
        return and_(true(), *parts) if given.type == "and" else or_(false(), *parts)
    if opposite := _OPPOSITES.get(given.type):
        return not_(_matches(cast("Operator", opposite), given.key, given.values))
    return _matches(given.type, given.key, given.values)


class _Reader:
    """Counts as it reads, so that no filter is larger than a database takes."""

    def __init__(self) -> None:
        self._comparisons = 0
        self._values = 0

    def read(self, value: Any, at: str, depth: int) -> Filter:
        if depth > MAX_DEPTH:
            raise _invalid(at, f"filters may be nested {MAX_DEPTH} deep at most")
        if not isinstance(value, dict):
            raise _wrong_type(at, "an object", value)
        kind = _required(value, "type", at)
        if kind in _JOINS:
            return self._read_compound(kind, value, at, depth)
        if kind not in _OPERATORS:
            known = ", ".join(f"'{one}'" for one in (*_OPERATORS, *_JOINS))
            raise _invalid(f"{at}.type", f"supported values are: {known}")
        self._comparisons += 1
        if self._comparisons > MAX_COMPARISONS:
            raise _invalid(at, f"a filter may have {MAX_COMPARISONS} comparisons at most")
        return Comparison(kind, _read_key(value, at), self._read_values(kind, value, at))

    def _read_compound(
        self, kind: Literal["and", "or"], value: dict[str, Any], at: str, depth: int
    ) -> Compound:
        filters = _required(value, "filters", at)
        if not isinstance(filters, list):
            raise _wrong_type(f"{at}.filters", "an array", filters)
        parts = tuple(
            self.read(one, f"{at}.filters[{index}]", depth + 1) for index, one in enumerate(filters)
        )
        return Compound(kind, parts)

    def _read_values(self, kind: Operator, value: dict[str, Any], at: str) -> tuple[Scalar, ...]:
        path = f"{at}.value"
        given = _required(value, "value", at)
        if kind not in _LISTS:
            if kind in _ORDERED and isinstance(given, bool):
                raise _wrong_type(path, "a string or a number", given)
            return (_read_scalar(given, path),)
        if not isinstance(given, list):
            raise _wrong_type(path, "an array", given)
        self._values += len(given)
        if self._values > MAX_VALUES:
            raise _invalid(path, f"a filter may have {MAX_VALUES} values in lists at most")
        return tuple(_read_scalar(one, f"{path}[{index}]") for index, one in enumerate(given))


def _read_key(value: dict[str, Any], at: str) -> str:
    key = _required(value, "key", at)
    if not isinstance(key, str):
        raise _wrong_type(f"{at}.key", "a string", key)
    if not 1 <= len(key) <= MAX_KEY_CHARACTERS or "\0" in key:
        raise _invalid(
            f"{at}.key", f"expected 1 to {MAX_KEY_CHARACTERS} characters, none of them NUL"
        )
    return key


def _read_scalar(value: Any, at: str) -> Scalar:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        if "\0" in value:
            raise _invalid(at, "a string may not contain the character NUL")
        return value
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            raise _invalid(at, "the number is too large") from None
    raise _wrong_type(at, "a string, a number or a boolean", value)


def _required(value: dict[str, Any], name: str, at: str) -> Any:
    if name not in value:
        raise InvalidRequest(
            f"Missing required parameter: '{at}.{name}'.",
            param=f"{at}.{name}",
            code="missing_required_parameter",
        )
    return value[name]


def _invalid(at: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid value for '{at}': {why}.", param=at, code="invalid_value")


def _wrong_type(at: str, want: str, value: Any) -> InvalidRequest:
    return InvalidRequest(
        f"Invalid type for '{at}': expected {want}, but got {_word(value)} instead.",
        param=at,
        code="invalid_type",
    )


def _word(value: Any) -> str:
    if value is None:
        return "null"
    words: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (bool, "a boolean"),
        (str, "a string"),
        ((int, float), "a number"),
        (list, "an array"),
        (dict, "an object"),
    )
    return next((word for kind, word in words if isinstance(value, kind)), type(value).__name__)


# ------------------------------------------------------------------------------------------- SQL


class _ByCodePoint(FunctionElement[str]):
    """A text in the order of its code points, whatever language the database is set to."""

    type = Text()
    inherit_cache = True


@compiles(_ByCodePoint)
def _usually(element: _ByCodePoint, compiler: Any, **options: Any) -> str:
    return cast("str", compiler.process(element.clauses, **options))  # SQLite's own order


@compiles(_ByCodePoint, "postgresql")
def _on_postgresql(element: _ByCodePoint, compiler: Any, **options: Any) -> str:
    return f'{compiler.process(element.clauses, **options)} COLLATE "C"'


Compare = Callable[[Any, Any], ColumnElement[bool]]

_COMPARE: dict[str, Compare] = {
    "gt": lambda column, value: column > value,
    "gte": lambda column, value: column >= value,
    "lt": lambda column, value: column < value,
    "lte": lambda column, value: column <= value,
}


def _matches(kind: Operator, key: str, values: Sequence[Scalar]) -> ColumnElement[bool]:
    """The file has this attribute, and one of the values fits."""
    attribute = VectorStoreFileRow.id.in_(_having(key).where(_fits_attribute(kind, values)))
    column = _BUILT_IN.get(key)
    if column is None:
        return attribute
    has_attribute = VectorStoreFileRow.id.in_(_having(key))
    texts = [value for value in values if isinstance(value, str)]
    fits = and_(column.is_not(None), _compare_text(kind, column, texts))
    return or_(attribute, and_(not_(has_attribute), fits))


def _having(key: str) -> Select[str]:
    """The files of the store that have this attribute. Looked up once, by its index, where asking
    for each file whether it has it would take as many lookups as there are files.
    """
    return select(AttributeRow.attachment_id).where(
        AttributeRow.store_id == bindparam("store_id"), AttributeRow.key == key
    )


_BUILT_IN: dict[str, InstrumentedAttribute[Any]] = {
    "file_id": VectorStoreFileRow.file_id,
    "filename": VectorStoreFileRow.filename,
}


def _fits_attribute(kind: Operator, values: Sequence[Scalar]) -> ColumnElement[bool]:
    booleans = [value for value in values if isinstance(value, bool)]
    texts = [value for value in values if isinstance(value, str)]
    numbers = [value for value in values if _is_number(value)]
    fits: list[ColumnElement[bool]] = []
    if texts:
        fits.append(_compare_text(kind, AttributeRow.text, texts))
    if numbers:
        fits.append(_compare(kind, AttributeRow.number, numbers))
    fits += [AttributeRow.boolean.is_(value) for value in sorted(set(booleans))]
    return or_(false(), *fits)


def _is_number(value: Scalar) -> TypeGuard[float]:
    return isinstance(value, float)


def _compare_text(kind: Operator, column: Any, texts: Sequence[str]) -> ColumnElement[bool]:
    if not texts:
        return false()
    if kind in _ORDERED:
        column = _ByCodePoint(column)
    return _compare(kind, column, texts)


def _compare(kind: Operator, column: Any, values: Sequence[Any]) -> ColumnElement[bool]:
    if compare := _COMPARE.get(kind):
        return compare(column, values[0])
    if len(values) == 1:
        return cast("ColumnElement[bool]", column == values[0])
    return cast("ColumnElement[bool]", column.in_(values))
