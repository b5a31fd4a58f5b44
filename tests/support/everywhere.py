"""Looking for a text in all that a database holds."""

from __future__ import annotations

import subprocess
from pathlib import Path

from sqlalchemy import text

from gateway.database.engine import Database

_TABLES = {
    True: "SELECT name FROM sqlite_master WHERE type = 'table'",
    False: "SELECT tablename FROM pg_tables WHERE schemaname = 'public'",
}


_NAMES = {"audit_log": ("object_id", "path")}
"""Columns that name what was changed, and go on naming it when it is gone."""


async def tables_with(database: Database, wanted: str) -> list[str]:
    """The tables in which this text stands, in any column of any row but in mere names."""
    async with database.read() as session:
        names = (await session.execute(text(_TABLES[database.is_sqlite]))).scalars().all()
        found = []
        for name in sorted(names):
            rows = (await session.execute(text(f'SELECT * FROM "{name}"'))).mappings().all()
            named = _NAMES.get(name, ())
            if any(
                wanted in str(value)
                for row in rows
                for column, value in row.items()
                if column not in named
            ):
                found.append(name)
    return found


def files_with(folder: Path, wanted: str) -> list[str]:
    """The files below this folder whose bytes hold the text: what a database has not yet let go
    of is found too.

    Another process reads them: closing a file here would drop the locks that this process has on
    it, SQLite's among them.
    """
    found = subprocess.run(
        ["grep", "--recursive", "--files-with-matches", "--text", "--fixed-strings", wanted, "."],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode in (0, 1), found.stderr
    return sorted(found.stdout.split())
