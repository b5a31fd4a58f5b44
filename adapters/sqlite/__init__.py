"""The queue where the database is SQLite."""

from adapters.sqlite.queue import SqliteQueue

__all__ = ["SqliteQueue"]
