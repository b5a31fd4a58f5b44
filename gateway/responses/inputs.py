"""Images and files in the input of a response, made into what a chat model takes."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.errors import GatewayError, InvalidRequest, NotFound, UpstreamError
from gateway.files.service import FileService
from gateway.identity.principal import Principal
from gateway.ingestion.workspace import Workspace
from gateway.observability.activity import Activity
from gateway.ports import ChunkSizes, ConversionFailed, DocumentConverter, WebFetcher

__all__ = ["InputReader"]

MAX_IMAGE_BYTES = 20 * 1024 * 1024
MAX_FILE_BYTES = 32 * 1024 * 1024
"""As large as OpenAI takes it."""
MAX_ATTACHMENTS = 100
"""Images and files in one context."""
MAX_TOTAL_BYTES = 50 * 1024 * 1024
"""All of them together."""
AT_ONCE = 4

_IMAGES = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
)
_WHOLE = ChunkSizes(max_chunk_size_tokens=4096, chunk_overlap_tokens=0)


class InputReader:
    """Reads attachments for one response; each is read once, however often its turn comes.

    Images become data URLs and documents text, so that a model server never fetches what a
    caller names.
    """

    def __init__(
        self,
        principal: Principal,
        files: FileService,
        fetcher: WebFetcher,
        converter: DocumentConverter,
        workspace: Workspace,
    ) -> None:
        self._principal = principal
        self._files = files
        self._fetcher = fetcher
        self._converter = converter
        self._workspace = workspace
        self._read: dict[tuple[str, ...], dict[str, Any]] = {}
        self._bytes = 0

    async def read(
        self, activity: Activity, items: Sequence[tuple[str, Mapping[str, Any]]]
    ) -> None:
        """Read all that these items name, each given with the parameter that it is from. Raises
        ``InvalidRequest`` and ``NotFound`` that name the part at fault, and ``UpstreamError``.
        """
        wanted = _attachments(items)
        missing = {key: one for key, one in wanted.items() if key not in self._read}
        if len(wanted) > MAX_ATTACHMENTS:
            raise InvalidRequest(
                f"The input has more than {MAX_ATTACHMENTS} images and files.", param="input"
            )
        if not missing:
            return
        turns = asyncio.Semaphore(AT_ONCE)

        async def fill(key: tuple[str, ...], part: Mapping[str, Any], param: str) -> None:
            async with turns:
                try:
                    if part["type"] == "input_image":
                        self._read[key] = await self._image(part, param)
                    else:
                        self._read[key] = await self._file(activity, part, param)
                except GatewayError as error:
                    if not param.startswith("input["):  # which callers can't count into
                        error.param = param.partition(".")[0]
                    raise

        try:
            async with asyncio.TaskGroup() as group:
                for key, (part, param) in missing.items():
                    group.create_task(fill(key, part, param))
        except* GatewayError as failed:
            raise failed.exceptions[0] from None

    def content(self, parts: Sequence[Mapping[str, Any]]) -> Any:
        """A chat message's content: a string where it is nothing but text."""
        shown = [self._part(part) for part in parts]
        if all(part["type"] == "text" for part in shown):
            return "\n".join(part["text"] for part in shown)
        return shown

    def _part(self, part: Mapping[str, Any]) -> dict[str, Any]:
        match part["type"]:
            case "input_image" | "input_file":
                return self._read[_key(part)]
            case "input_audio":
                return {"type": "input_audio", "input_audio": part["input_audio"]}
            case "refusal":
                return {"type": "text", "text": part["refusal"]}
        return {"type": "text", "text": part["text"]}

    async def _image(self, part: Mapping[str, Any], param: str) -> dict[str, Any]:
        url, where = part.get("image_url"), f"{param}.image_url"
        if part.get("file_id"):
            where = f"{param}.file_id"
            data, _ = await self._stored(part["file_id"], MAX_IMAGE_BYTES, where)
        elif not url:
            raise InvalidRequest(
                f"Missing required parameter: '{where}' or '{param}.file_id'.",
                param=where,
                code="missing_required_parameter",
            )
        elif url.startswith("data:"):
            data = _data_url(url, MAX_IMAGE_BYTES, where)
        else:
            data, _ = await self._fetched(url, MAX_IMAGE_BYTES, where)
        self._weigh(len(data), where)
        media_type = next((kind for magic, kind in _IMAGES if magic.match(data)), None)
        if media_type is None:
            raise InvalidRequest(
                "The image is in no format that is supported: PNG, JPEG, GIF or WebP.",
                param=where,
                code="invalid_image_format",
            )
        image = {"url": f"data:{media_type};base64,{base64.b64encode(data).decode()}"}
        if part.get("detail") in ("low", "high", "auto"):
            image["detail"] = part["detail"]
        return {"type": "image_url", "image_url": image}

    async def _file(
        self, activity: Activity, part: Mapping[str, Any], param: str
    ) -> dict[str, Any]:
        name = part.get("filename")
        if part.get("file_id"):
            data, stored = await self._stored(part["file_id"], MAX_FILE_BYTES, f"{param}.file_id")
        elif part.get("file_data"):
            data, stored = _file_data(part["file_data"], f"{param}.file_data"), "document"
        elif part.get("file_url"):
            where = f"{param}.file_url"
            data, stored = await self._fetched(part["file_url"], MAX_FILE_BYTES, where)
        else:
            raise InvalidRequest(
                f"Missing required parameter: '{param}.file_id', 'file_url' or 'file_data'.",
                param=f"{param}.file_id",
                code="missing_required_parameter",
            )
        self._weigh(len(data), param)
        name = name or stored
        with activity.step("convert"):
            text = await self._text(data, name, param)
        return {"type": "text", "text": f"File {name}:\n{text}"}

    async def _text(self, data: bytes, name: str, param: str) -> str:
        async with self._workspace.folder() as folder:
            source, document = folder / "content", folder / "document.json"
            await asyncio.to_thread(Path.write_bytes, source, data)
            try:
                await self._converter.convert(source, name, document)
                chunks = await self._converter.chunk(document, _WHOLE)
            except ConversionFailed as error:
                if error.code == "server_error":
                    raise UpstreamError(error.message, code="conversion_failed") from None
                raise InvalidRequest(error.message, param=param, code=error.code) from None
        return "\n\n".join(chunk.text for chunk in chunks)

    def _weigh(self, size: int, param: str) -> None:
        self._bytes += size
        if self._bytes > MAX_TOTAL_BYTES:
            raise _too_large(MAX_TOTAL_BYTES, param, "The images and files together are")

    async def _stored(self, file_id: str, most: int, param: str) -> tuple[bytes, str]:
        try:
            content = await self._files.content(self._principal, file_id)
        except (InvalidRequest, NotFound) as error:
            error.param = param
            raise
        if content.size > most:
            raise _too_large(most, param)
        blocks = [block async for block in content.read(0, content.size)]
        return b"".join(blocks), content.filename

    async def _fetched(self, url: str, most: int, param: str) -> tuple[bytes, str]:
        page = await self._fetcher.fetch(url, max_bytes=most, param=param)
        return page.data, page.filename


def _attachments(
    items: Sequence[tuple[str, Mapping[str, Any]]],
) -> dict[tuple[str, ...], tuple[Mapping[str, Any], str]]:
    """The images and files of these items, each once, with where it first stands."""
    wanted: dict[tuple[str, ...], tuple[Mapping[str, Any], str]] = {}
    for place, item in items:
        field, parts = _parts_of(item)
        for number, part in enumerate(parts):
            if part["type"] in ("input_image", "input_file"):
                wanted.setdefault(_key(part), (part, f"{place}.{field}[{number}]"))
    return wanted


def _parts_of(item: Mapping[str, Any]) -> tuple[str, Sequence[Mapping[str, Any]]]:
    """Where an item may hold images and files, and what it holds there."""
    if item["type"] == "message" and item["role"] != "assistant":
        return "content", item["content"]
    if item["type"] == "function_call_output" and not isinstance(item["output"], str):
        return "output", item["output"]
    return "content", ()


def _key(part: Mapping[str, Any]) -> tuple[str, ...]:
    fields = ("image_url", "file_id", "file_url", "file_data", "filename", "detail")
    return (part["type"], *(str(part.get(name) or "") for name in fields))


def _data_url(url: str, most: int, param: str) -> bytes:
    head, comma, data = url.partition(",")
    if not comma or not head.endswith(";base64"):
        raise InvalidRequest(
            "A data URL has to be 'data:TYPE;base64,DATA'.", param=param, code="invalid_value"
        )
    return _base64(data, most, param)


def _file_data(given: str, param: str) -> bytes:
    if given.startswith("data:"):
        return _data_url(given, MAX_FILE_BYTES, param)
    return _base64(given, MAX_FILE_BYTES, param)


def _base64(data: str, most: int, param: str) -> bytes:
    if len(data) > most * 4 // 3 + 4:
        raise _too_large(most, param)
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(
            "The data is not valid base64.", param=param, code="invalid_value"
        ) from None


def _too_large(most: int, param: str, what: str = "It is") -> InvalidRequest:
    return InvalidRequest(
        f"{what} larger than {most} bytes, the most that a response takes.",
        param=param,
        code="file_too_large",
    )
