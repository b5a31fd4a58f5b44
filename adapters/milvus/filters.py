"""Boolean expressions of Milvus, with every value quoted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

__all__ = ["all_of", "any_of", "equals", "pieces"]

_CLAUSE_VALUES = 1000
_PIECE_VALUES = 10 * _CLAUSE_VALUES


def equals(field: str, value: str) -> str:
    return f"{field} == {_quoted(value)}"


def any_of(field: str, values: Sequence[str]) -> str:
    """``field`` is one of these, at most 1,000 to a clause."""
    clauses = [
        f"{field} in [{','.join(map(_quoted, values[start : start + _CLAUSE_VALUES]))}]"
        for start in range(0, len(values), _CLAUSE_VALUES)
    ]
    return clauses[0] if len(clauses) == 1 else f"({' or '.join(clauses)})"


def all_of(*expressions: str) -> str:
    """Those that aren't empty, joined."""
    return " and ".join(expression for expression in expressions if expression)


def pieces(values: Sequence[str]) -> Iterator[Sequence[str]]:
    """As many values as one search can well take, 10,000, each of them once."""
    unique = list(dict.fromkeys(values))
    for start in range(0, len(unique), _PIECE_VALUES):
        yield unique[start : start + _PIECE_VALUES]


def _quoted(value: str) -> str:
    """A literal of Milvus' grammar, whose escapes are those of JSON and C."""
    return json.dumps(value, ensure_ascii=False)
