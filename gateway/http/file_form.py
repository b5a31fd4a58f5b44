"""A form with one file in it, and fields before or behind it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Container
from typing import Self

from gateway.errors import InvalidRequest
from gateway.http.filename import harmless
from gateway.http.multipart import FormReader, Part

__all__ = ["FileForm"]

_MAX_MEDIA_TYPE = 127


class FileForm:
    """What the form says so far: the fields that came before the file, and all of them after it.

    ``media_type`` is what the caller says that the file is; ``filename`` has no folders in it.
    """

    def __init__(self, reader: FormReader, fields: Container[str]) -> None:
        self._reader = reader
        self._wanted = fields
        self._file: Part | None = None
        self.fields: dict[str, str] = {}

    @classmethod
    async def begin(cls, reader: FormReader, fields: Container[str] = ()) -> Self:
        """Read on to the file. Raises ``InvalidRequest`` where there is none."""
        form = cls(reader, fields)
        form._file = await form._next_file()
        if form._file is None:
            name = reader.limit.part
            raise InvalidRequest(
                f"Missing required parameter: '{name}'.",
                param=name,
                code="missing_required_parameter",
            )
        return form

    @property
    def filename(self) -> str:
        return harmless(self._file.filename if self._file is not None else None)

    @property
    def media_type(self) -> str | None:
        found = self._file.media_type if self._file is not None else None
        plain = found is not None and found.isascii() and found.isprintable()
        return found if plain and found is not None and len(found) <= _MAX_MEDIA_TYPE else None

    async def content(self, check: Callable[[], object]) -> AsyncGenerator[bytes, None]:
        """The file's content. It ends when the whole form has been read and ``check`` is content
        with its fields, so that what stores it stores nothing of a form that is wrong or cut off.
        """
        assert self._file is not None  # begun
        async for block in self._file.blocks():
            yield block
        if await self._next_file() is not None:
            name = self._reader.limit.part
            raise InvalidRequest("Send one file at a time.", param=name, code="invalid_value")
        check()

    async def _next_file(self) -> Part | None:
        """Read fields up to the next file; ``None`` at the end of the form."""
        while (part := await self._reader.next_part()) is not None:
            if part.name == self._reader.limit.part:
                return part
            if part.name in self._wanted:
                self.fields[part.name] = await part.text()
        return None
