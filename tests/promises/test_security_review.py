"""The security review is about tests that exist: every claim of docs/security.md names one."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

PROMISES = Path(__file__).parent
PAGE = (PROMISES.parents[1] / "docs" / "security.md").read_text()
RISKS = {
    1: "Broken object level authorization",
    2: "Broken authentication",
    3: "Broken object property level authorization",
    4: "Unrestricted resource consumption",
    5: "Broken function level authorization",
    6: "Unrestricted access to sensitive business flows",
    7: "Server side request forgery",
    8: "Security misconfiguration",
    9: "Improper inventory management",
    10: "Unsafe consumption of APIs",
}
NAMED = sorted(set(re.findall(r"`(test_\w+\.py(?:::test_\w+)?)`", PAGE)))


def section(number: int) -> str:
    """What the page says of a risk."""
    return PAGE.partition(f"## API{number}: ")[2].partition("\n## ")[0]


@cache
def named_in(file: str) -> dict[str, ast.AST]:
    tree = ast.parse((PROMISES / file).read_text())
    return {
        one.name: one
        for one in tree.body
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) and one.name.startswith("test_")
    }


@pytest.mark.parametrize("number", RISKS)
def test_every_risk_has_what_is_done_and_its_proof(number: int):
    """By OWASP's name, with at least one test."""
    assert section(number).startswith(f"{RISKS[number]}\n")
    assert re.search(r"`test_\w+\.py", section(number))


@pytest.mark.parametrize("name", NAMED)
def test_every_named_test_exists(name: str):
    """In the file that is named, and it checks something."""
    file, _, test = name.partition("::")
    assert (PROMISES / file).is_file()
    found = named_in(file)
    assert found
    assert not test or test in found


def test_every_row_has_a_proof():
    """No line of the tables is a claim alone."""
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and "---" not in line]
    assert len(rows) > 40
    for row in rows:
        assert "| what | proved by |" in row or "`test_" in row, row


def test_every_test_of_security_is_named():
    """Those that were written for the review are in it."""
    files = {path.name for path in PROMISES.glob("test_security_*.py")}
    assert files - {Path(__file__).name} <= {name.partition("::")[0] for name in NAMED}
