"""The token that Kubeflow Pipelines asks for."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway.ports import PipelineServerFailed
from gateway.settings import KubeflowSettings

__all__ = ["TokenSource"]


class TokenSource:
    def __init__(self, settings: KubeflowSettings) -> None:
        self._given = settings.token
        self._file = Path(settings.token_file) if settings.token_file else None

    async def headers(self) -> dict[str, str]:
        """For the next call. Raises ``PipelineServerFailed`` where there can't be a token."""
        token = self._given or ""
        if self._file is not None and not token:
            token = await asyncio.to_thread(self._read, self._file)
        if not token:
            return {}
        if not token.isascii() or not token.isprintable():
            raise PipelineServerFailed("kubeflow.token: a header can't carry it.")
        return {"authorization": f"Bearer {token}"}

    def _read(self, file: Path) -> str:
        try:
            text = file.read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise PipelineServerFailed(f"kubeflow.token_file can't be read: {why}.") from None
        if not text:
            raise PipelineServerFailed("kubeflow.token_file is empty.")
        if not file.is_file():  # a pipe, as of <(oc whoami -t), which gives it once
            self._given = text
        return text
