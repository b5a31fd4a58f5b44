"""Log lines: JSON with the ids that tie them to a request and its trace, or plain text."""

from __future__ import annotations

import logging
import logging.config
from datetime import UTC, datetime
from typing import Any

import msgspec

from gateway.settings import TelemetrySettings

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "taskName",
    "color_message",
}


class JsonFormatter(logging.Formatter):
    """One object a line. What a log call gives as ``extra`` becomes fields of it."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update({key: value for key, value in vars(record).items() if key not in _STANDARD})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


def configure_logging(settings: TelemetrySettings) -> None:
    """Set up the process's logging: everything to standard error."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "json": {"()": JsonFormatter},
                "text": {"format": "%(asctime)s %(levelname)-7s %(name)s: %(message)s"},
            },
            "handlers": {
                "stderr": {
                    "class": "logging.StreamHandler",
                    "formatter": settings.log_format,
                }
            },
            "root": {"handlers": ["stderr"], "level": settings.log_level.upper()},
            # One line for each request to a model server or an exporter is noise; their own
            # failures are told by who called them.
            "loggers": {
                "httpx": {"level": "WARNING"},
                "httpcore": {"level": "WARNING"},
                "httpx2": {"level": "WARNING"},
                "httpcore2": {"level": "WARNING"},
                "mcp": {"level": "CRITICAL"},  # it logs what tools are told and say
                "urllib3": {"level": "ERROR"},  # of each try again, with hosts and keys
                "alembic": {"level": "WARNING"},
                "uvicorn.access": {"level": "WARNING"},
            },
        }
    )
