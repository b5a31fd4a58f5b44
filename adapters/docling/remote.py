"""The ``DocumentConverter`` port on a docling-serve.

Its asynchronous routes are used: a file is handed in, its task is asked for until it has ended,
and the result is fetched, once, since docling-serve forgets it then. What counts is the ``status``
in an answer: docling-serve says 200 of files that it could not convert.

Text and source code are not sent there, and documents are cut into chunks here: both happen in
processes of this machine, as with the local converter.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import httpx
import msgspec
from msgspec import Raw, Struct

from adapters.docling import formats
from adapters.docling.local import DoclingConverter
from gateway.ports import Chunk, ChunkSizes, ConversionFailed
from gateway.settings import DocumentSettings, IngestionSettings

__all__ = ["DoclingServeConverter"]

_POLL_SECONDS = 0.25
_SLOWEST_POLL_SECONDS = 2.0
_TIMEOUT = httpx.Timeout(30.0, connect=10.0, write=120.0)
_MOST_LOST_POLLS = 5
_MAX_ANSWER_BYTES = 1024 * 1024 * 1024
_ZIPPED = {"docx", "pptx", "xlsx", "odt", "ods", "odp", "epub"}


ShapeT = TypeVar("ShapeT", bound=Struct)


class _Task(Struct, frozen=True):
    task_id: str
    task_status: str


class _Document(Struct, frozen=True):
    json_content: Raw = Raw(b"null")


class _Pages(Struct, frozen=True):
    pages: dict[str, Raw] = {}


class _Problem(Struct, frozen=True):
    category: str | None = None
    error_message: str = ""


class _Result(Struct, frozen=True):
    document: _Document
    status: str
    errors: list[_Problem] = []


class DoclingServeConverter:
    """Reached at ``documents.url`` (``http://docling:5001``)."""

    def __init__(self, documents: DocumentSettings, ingestion: IngestionSettings) -> None:
        assert documents.url is not None, "documents.url is checked with the settings"
        self._documents = documents
        self._ingestion = ingestion
        self._local = DoclingConverter(documents, ingestion)
        headers = {"X-Api-Key": documents.api_key} if documents.api_key else {}
        self._client = httpx.AsyncClient(
            base_url=documents.url.rstrip("/").removesuffix("/v1"),
            headers=headers,
            timeout=_TIMEOUT,
            verify=_tls(documents),
            follow_redirects=False,
            trust_env=False,
        )
        self._free = asyncio.Semaphore(documents.processes)

    async def convert(self, source: Path, filename: str, into: Path) -> None:
        kind = await asyncio.to_thread(self._check, source, filename)
        if kind == "text":
            await self._local.convert(source, filename, into)
            return
        timeout = self._ingestion.timeout_seconds
        part = into.with_name(f"{into.name}.part")
        try:
            async with self._free, asyncio.timeout(timeout):
                result = await self._converted(source, filename)
            await asyncio.to_thread(part.write_bytes, bytes(result))
            await asyncio.to_thread(part.replace, into)
        except TimeoutError:
            raise ConversionFailed(
                "invalid_file",
                f"The conversion took longer than ingestion.timeout_seconds ({timeout:g} "
                "seconds). Split the file.",
            ) from None
        finally:
            part.unlink(missing_ok=True)

    async def chunk(self, document: Path, sizes: ChunkSizes) -> list[Chunk]:
        return await self._local.chunk(document, sizes)

    async def aclose(self) -> None:
        await self._client.aclose()
        await self._local.aclose()

    def _check(self, source: Path, filename: str) -> str:
        """The kind of file; raises for what isn't worth the journey."""
        kind = formats.recognise(source, filename)
        size = source.stat().st_size
        if kind.name != "text" and size > self._ingestion.max_file_bytes:
            raise ConversionFailed(
                "invalid_file",
                f"The file has {size} bytes, more than ingestion.max_file_bytes "
                f"({self._ingestion.max_file_bytes}) allows for documents of its type.",
            )
        if kind.name in _ZIPPED:
            formats.check_archive(source, self._ingestion.max_unzipped_bytes)
        return kind.name

    async def _converted(self, source: Path, filename: str) -> Raw:
        task = await self._submit(source, filename)
        pause, lost = _POLL_SECONDS, 0
        while task.task_status not in {"success", "failure", "partial_success", "skipped"}:
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _SLOWEST_POLL_SECONDS)
            try:
                answer = await self._ask("GET", f"/v1/status/poll/{task.task_id}")
                task = _decode(answer, _Task)
                lost = 0
            except ConversionFailed as error:
                lost += 1  # a restart of a proxy between us costs no conversion
                if not error.transient or lost > _MOST_LOST_POLLS:
                    raise
        try:
            answer = await self._ask("GET", f"/v1/result/{task.task_id}")
        except ConversionFailed as error:
            if task.task_status != "failure":
                raise
            raise ConversionFailed(
                "server_error", "docling-serve failed while it worked on the file.", transient=True
            ) from error
        document = _document(_decode(answer, _Result))
        if len(_decode(bytes(document), _Pages).pages) > self._ingestion.max_pages:
            raise ConversionFailed(
                "invalid_file",
                f"The file has more pages than ingestion.max_pages ({self._ingestion.max_pages}). "
                "Split it.",
            )
        return document

    async def _submit(self, source: Path, filename: str) -> _Task:
        options: dict[str, Any] = {
            "to_formats": "json",
            "do_ocr": "true" if self._documents.ocr else "false",
            "image_export_mode": "placeholder",
            # One more than allowed, so that a longer one is refused and not cut.
            "page_range": ["1", str(self._ingestion.max_pages + 1)],
            "abort_on_error": "false",
        }
        # Names may be in any script and hold anything; docling-serve only needs the ending.
        ending = Path(filename.replace("\\", "/")).suffix.lower()
        name = f"document{ending if ending.isascii() else ''}"
        data = await asyncio.to_thread(source.read_bytes)
        answer = await self._ask(
            "POST",
            "/v1/convert/file/async",
            data=options,
            files={"files": (name, data, "application/octet-stream")},
        )
        return _decode(answer, _Task)

    async def _ask(self, method: str, path: str, **body: Any) -> bytes:
        """The body of a 2xx answer. Raises ``ConversionFailed``."""
        try:
            async with self._client.stream(method, path, **body) as response:
                parts: list[bytes] = []
                length = 0
                async for part in response.aiter_bytes():
                    length += len(part)
                    if length > _MAX_ANSWER_BYTES:
                        raise ConversionFailed(
                            "invalid_file", "The converted document is larger than can be stored."
                        )
                    parts.append(part)
        except httpx.HTTPError as error:
            raise ConversionFailed(
                "server_error", "docling-serve can't be reached.", transient=True
            ) from error
        if not response.is_success:
            _refused(response.status_code)
        return b"".join(parts)


def _tls(documents: DocumentSettings) -> ssl.SSLContext | bool:
    if documents.ca_file is None:
        return True
    return ssl.create_default_context(cafile=documents.ca_file)


def _refused(status: int) -> NoReturn:
    if status in {401, 403}:
        raise ConversionFailed(
            "server_error", "docling-serve refuses the gateway's key: check documents.api_key."
        )
    if status == 413:
        raise ConversionFailed("invalid_file", "The file is larger than docling-serve takes.")
    if status == 404:
        raise ConversionFailed(
            "server_error", "docling-serve has lost the conversion of the file.", transient=True
        )
    raise ConversionFailed(
        "server_error",
        f"docling-serve answered with status {status}.",
        transient=status >= 500 or status in {408, 425, 429},
    )


def _decode(body: bytes, shape: type[ShapeT]) -> ShapeT:
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConversionFailed(
            "server_error", "docling-serve answered in an unknown shape.", transient=True
        ) from error


def _document(result: _Result) -> Raw:
    """The DoclingDocument of a result, whose status and errors say whether there is one."""
    content = result.document.json_content
    if result.status in {"success", "partial_success"} and bytes(content) != b"null":
        return content
    categories = {problem.category for problem in result.errors}
    if "timeout" in categories:
        raise ConversionFailed(
            "invalid_file", "The conversion took longer than docling-serve allows. Split the file."
        )
    if "policy" in categories or result.status == "skipped":
        raise ConversionFailed(
            "unsupported_file",
            "docling-serve does not take the file: its type, its size or its number of pages.",
        )
    raise ConversionFailed(
        "invalid_file",
        "docling-serve can't read the file: it may be damaged, cut off or protected with a "
        "password.",
    )
