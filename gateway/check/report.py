"""Findings for people and for machines."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import click
import msgspec

from gateway.check.finding import Finding, State

__all__ = ["as_json", "as_table", "exit_status"]

_COLOURS: dict[State, str] = {
    "ok": "green",
    "warning": "yellow",
    "failed": "red",
    "skipped": "bright_black",
}
_LONGEST_ADDRESS = 48
_LEAST_WORDS = 40
_HEADINGS = ("STATE", "SYSTEM", "ADDRESS", "FOUND")


def as_table(findings: Sequence[Finding], *, width: int) -> str:
    """Aligned rows, each followed by what helps, and a line that counts them."""
    rows = [(one.state, one.system, _short(one.address)) for one in findings]
    widths = [max(len(row[column]) for row in (*rows, _HEADINGS)) for column in range(3)]
    indent = sum(widths) + 2 * len(widths)
    room = max(_LEAST_WORDS, width - indent)
    lines = [_row(_HEADINGS[:3], widths) + _HEADINGS[3]]
    for finding, row in zip(findings, rows, strict=True):
        first, *more = textwrap.wrap(finding.found, room) or [""]
        plain = _row(row, widths) + first
        coloured = click.style(finding.state, fg=_COLOURS[finding.state])
        lines.append(coloured + plain[len(finding.state) :])
        lines += [" " * indent + line for line in more]
        if finding.mend is not None:
            wrapped = textwrap.wrap(finding.mend, room - 2, break_on_hyphens=False)
            lines += [
                " " * indent + ("→ " if not index else "  ") + line
                for index, line in enumerate(wrapped)
            ]
    counts = {state: sum(one.state == state for one in findings) for state in _COLOURS}
    said = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    return "\n".join([*lines, "", said])


def as_json(findings: Sequence[Finding], status: int) -> str:
    """One object: ``ok``, and the findings as they are."""
    document = {"ok": status == 0, "findings": findings}
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()


def exit_status(findings: Sequence[Finding], *, strict: bool) -> int:
    """1 where something failed, or, if ``strict``, is warned of."""
    bad: set[State] = {"failed", "warning"} if strict else {"failed"}
    return int(any(one.state in bad for one in findings))


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(f"{cell:<{width}}  " for cell, width in zip(cells, widths, strict=True))


def _short(address: str) -> str:
    """The end of a long one tells more than its beginning."""
    return address if len(address) <= _LONGEST_ADDRESS else f"…{address[1 - _LONGEST_ADDRESS :]}"
