"""The queue where the database is PostgreSQL: procrastinate's tables and functions."""

from adapters.procrastinate.queue import ProcrastinateQueue

__all__ = ["ProcrastinateQueue"]
