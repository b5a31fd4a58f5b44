"""Steps of the schema: what is missing between them and the tables, and writing a new one.

    python -m tests.support.migrations "Say what it does"     # one more step
    python -m tests.support.migrations --first                # the first one anew

The second is for as long as nothing was released. Read what it writes, and run the tests.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from alembic.autogenerate import api, compare_metadata, produce_migrations
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine

from gateway.database import migrate
from gateway.database.tables import Base

VERSIONS = Path(migrate.__file__).parent / "migrations" / "versions"

STEP = '''"""{message}."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = {before}


def upgrade() -> None:
{body}
'''


def differences(connection: Connection) -> list[Any]:
    """What would have to be done to this database so that it is what the tables say."""
    context = MigrationContext.configure(
        connection,
        opts={"include_object": lambda _, name, *__: not str(name).startswith("procrastinate")},
    )
    return compare_metadata(context, Base.metadata)


def write_step(revision: str, message: str) -> Path:
    """Write the step from what the earlier steps make to what the tables say."""
    first = revision == "0001"
    with create_engine("sqlite://").begin() as connection:
        if not first:
            migrate._take_steps(connection)
        context = MigrationContext.configure(connection)
        steps = produce_migrations(context, Base.metadata)
        # SQLite changes a table by making a new one, which is what a batch does.
        body = api.render_python_code(steps.upgrade_ops, render_as_batch=not first)
    body = "\n".join(line for line in body.splitlines() if not line.strip().startswith("# ###"))
    body = re.sub(r"\b(?:batch_)?op\.f\(('\w+')\)", r"\1", body)
    slug = re.sub(r"\W+", "_", message.lower()).strip("_")
    before = "None" if first else f'"{int(revision) - 1:04}"'
    for file in VERSIONS.glob(f"v{revision}_*.py"):
        file.unlink()
    path = VERSIONS / f"v{revision}_{slug}.py"
    path.write_text(STEP.format(message=message, revision=revision, before=before, body=body))
    subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", str(path)], check=True)
    return path


def main() -> None:
    if sys.argv[1:] == ["--first"]:
        path = write_step("0001", "Files and vector stores")
    elif len(sys.argv) == 2:
        path = write_step(f"{int(migrate.newest_revision()) + 1:04}", sys.argv[1])
    else:
        sys.exit(__doc__)
    print(path)


if __name__ == "__main__":
    main()
