"""Whatever a caller names a file, the name stays text: it comes back as it was, leads nowhere on
the gateway's disk, and breaks out of no header."""

from __future__ import annotations

import json
import urllib.parse
from email.message import Message
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI

from gateway.http.filename import UNNAMED
from tests.support.inprocess import InProcessGateway

pytestmark = pytest.mark.anyio

KEPT = [
    "plain.txt",
    "with spaces and (brackets) [2].txt",
    "Übergrößenträger.pdf",
    "отчёт за год.docx",
    "报告 2026 年.xlsx",
    "日本語のファイル名.md",
    "한국어 문서.pdf",
    "تقرير سنوي.pdf",
    "דוח שנתי.docx",
    "वार्षिक रिपोर्ट.pdf",
    "รายงานประจำปี.pdf",
    "می\u200cروم.txt",
    "👩\u200d👩\u200d👧 family.png",
    "cafe\u0301.txt",
    'quo"ted.txt',
    "apostrophe's.txt",
    "semi;colon=yes.txt",
    "comma,comma.txt",
    "100%.txt",
    "100%25.txt",
    "a%2Fb.txt",
    "<script>alert(1)<script>.html",
    "'; DROP TABLE files; --.sql",
    "$(reboot) `reboot`.sh",
    "%s%n{0}.txt",
    ".env",
    "-rf",
    "CON",
    "trailing dot.",
    "no_suffix",
    "x" * 255,
]
"""Names that come back as they were sent."""

CHANGED = {
    "../../../etc/passwd": "passwd",
    "/etc/shadow": "shadow",
    "C:\\Windows\\System32\\cmd.exe": "cmd.exe",
    "..\\..\\boot.ini": "boot.ini",
    "..": UNNAMED,
    ".": UNNAMED,
    "folder/": UNNAMED,
    "   ": UNNAMED,
    "invoice\u202etxt.exe": "invoicetxt.exe",
    "two\u2028lines.txt": "twolines.txt",
    "next\x85line.txt": "nextline.txt",
    "del\x7fete.txt": "delete.txt",
    "x" * 400 + ".pdf": "x" * 251 + ".pdf",
}
"""Names that are kept without folders, without control characters, and 255 characters long."""


@pytest.fixture(scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("data")
    async with InProcessGateway(data_dir=str(folder)) as gateway:
        yield gateway


@pytest.fixture(scope="module")
async def client(gateway):
    async with AsyncOpenAI(base_url=gateway.base_url, api_key="none", max_retries=0) as client:
        yield client


def plain_name(header: str) -> str | None:
    """`filename`, which old clients read."""
    message = Message()
    message["content-disposition"] = header.partition("; filename*=")[0]
    return message.get_filename()


def full_name(header: str) -> str:
    """The name as RFC 6266 has it: `filename*` where it is there."""
    charset, _, encoded = header.partition("filename*=")[2].partition("''")
    if not encoded:
        name = plain_name(header)
        assert name is not None
        return name
    assert charset == "UTF-8"
    return urllib.parse.unquote(encoded, encoding="utf-8", errors="strict")


@pytest.mark.parametrize(
    ("sent", "name"),
    [*((name, name) for name in KEPT), *CHANGED.items()],
    ids=lambda name: ascii(name)[:40],
)
async def test_a_name_comes_back(gateway, client: AsyncOpenAI, sent: str, name: str):
    """The same on upload, retrieval, in the list and in the header of the download."""
    made = await client.files.create(file=(sent, b"content"), purpose="assistants")
    assert made.filename == name
    assert (await client.files.retrieve(made.id)).filename == name
    assert name in [file.filename async for file in client.files.list()]
    async with gateway.client() as http:
        answer = await http.get(f"/v1/files/{made.id}/content")
    header = answer.headers["content-disposition"]
    assert answer.content == b"content"
    assert full_name(header) == name
    assert header.startswith('attachment; filename="')
    assert header.isascii()
    assert header.isprintable()
    plain = plain_name(header)
    assert plain
    assert not set(plain) & set('/\\"%\r\n')


@pytest.mark.parametrize("sent", [*KEPT, *CHANGED], ids=lambda name: ascii(name)[:40])
async def test_an_upload_in_parts_has_the_same_rules(client: AsyncOpenAI, sent: str):
    """Its name comes as JSON, so any character can be in it."""
    upload = await client.uploads.create(
        bytes=1, filename=sent, mime_type="text/plain", purpose="batch"
    )
    assert upload.filename == CHANGED.get(sent, sent)


INJECTIONS = [
    "a\r\nset-cookie: x=1\r\n\r\n<html>.txt",
    "a\nx-injected: 1.txt",
    'a"; filename="b.txt',
    'a"\r\nx-injected: 1\r\n.txt',
    "a\x00.txt",
    "a\x1b[31m.txt",
    "a\u0085x-injected: 1",
]


@pytest.mark.parametrize("name", INJECTIONS, ids=ascii)
async def test_a_name_breaks_out_of_no_header(gateway, client: AsyncOpenAI, name: str):
    """As JSON it reaches the gateway unescaped; it comes back in one header, on one line."""
    upload = await client.uploads.create(
        bytes=1, filename=name, mime_type="text/plain", purpose="batch"
    )
    part = await client.uploads.parts.create(upload.id, data=b"x")
    done = await client.uploads.complete(upload.id, part_ids=[part.id])
    assert done.file is not None
    kept = done.file.filename
    assert kept == "".join(one for one in name.rpartition("/")[2] if one.isprintable()).strip()
    async with gateway.client() as http:
        answer = await http.get(f"/v1/files/{done.file.id}/content")
    assert answer.content == b"x"
    assert full_name(answer.headers["content-disposition"]) == kept
    assert not {"x-injected", "set-cookie"} & set(answer.headers)


RAW = {
    b'filename="caf\xc3\xa9.txt"': "café.txt",
    b'filename="caf\xe9.txt"': "café.txt",
    b"filename*=UTF-8''%E2%82%AC%20rates.txt": "€ rates.txt",
    b"filename=\"rates.txt\"; filename*=UTF-8''%E2%82%AC.txt": "€.txt",
    b'filename="C:\\fakepath\\a.txt"': "a.txt",
    b'filename="a%22b.txt"': 'a"b.txt',
    b'filename="a\\"b.txt"': 'a"b.txt',
    b'filename="a%0d%0ax-injected: 1.txt"': "ax-injected: 1.txt",
    b'filename="a\x00b\x07.txt"': "ab.txt",
    b'filename=""': UNNAMED,
    b"filename=": UNNAMED,
    b"filename*=UTF-8''%00%01": UNNAMED,
    b"size=7": UNNAMED,
}


@pytest.mark.parametrize(("option", "name"), RAW.items(), ids=ascii)
async def test_every_way_of_writing_a_name_is_understood(gateway, option: bytes, name: str):
    """Browsers, old browsers, curl and RFC 5987; without a name the file gets one."""
    body = (
        b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--b\r\ncontent-disposition: form-data; name="file"; %s\r\n\r\nx\r\n--b--\r\n' % option
    )
    made = await posted(gateway, body)
    assert made["filename"] == name


async def posted(gateway: InProcessGateway, body: bytes) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=gateway.root_url, timeout=30) as http:
        headers = {"content-type": "multipart/form-data; boundary=b"}
        answer = await http.post("/v1/files", content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return json.loads(answer.content)


async def test_no_name_reaches_the_disk(gateway):
    """After all of the above, every file of the object store lies under a key of the gateway's."""
    objects = Path(gateway.settings.data_dir) / "objects"
    for path in objects.rglob("*"):
        if path.is_file():
            kind, name, *rest = path.relative_to(objects / "default").parts
            assert (kind, rest) in (("files", ["content"]), ("uploads", [path.name]))
            assert name.isascii()
            assert name.startswith(("file-", "upload_"))
    outside = {path.name for path in objects.parent.iterdir()}
    assert not outside & {"passwd", "shadow", "cmd.exe", "boot.ini"}
