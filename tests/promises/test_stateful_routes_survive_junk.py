"""Whatever a caller sends to the routes that keep state, the answer is OpenAI's error and never a
fault of the gateway's: on SQLite with Milvus Lite and on PostgreSQL, which refuses more."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

import gateway.app
from tests.support.forms import form
from tests.support.inprocess import InProcessGateway
from tests.support.memory import MemoryVectorIndex
from tests.support.upstream import FakeVllm
from tests.support.wire import Answer, Poster

pytestmark = pytest.mark.anyio

MODEL = "fake-embedding"
CHAT = "fake-chat"
DIMENSION = 384
FORM = "multipart/form-data; boundary=simple"

# Of which every value of a body is replaced by each.
VALUES: dict[str, bytes] = {
    "null": b"null",
    "negative": b"-1",
    "64 bits": b"9223372036854775808",
    "400 digits": b"1" * 400,
    "5000 digits": b"1" * 5000,
    "out of range": b"1e400",
    "NaN": b"NaN",
    "empty": b'""',
    "nul": rb'"a\u0000b"',
    "surrogate": rb'"\udc00"',
    "long": b'"' + b"a" * 100_000 + b'"',
    "emoji": json.dumps("".join(map(chr, range(0x1F300, 0x1F300 + 1024)))).encode(),
    "array": b"[]",
    "array of nul": rb'["\u0000"]',
    "array of numbers": b"[1e300, 1e39]",
    "object": b"{}",
    "odd object": rb'{"\u0000": "\u0000", "": 1, "type": [], "key": {}}',
    "deep": b"[" * 5000 + b"]" * 5000,
}
SAID = {"role": "user", "content": "a"}
ASKED = {"model": CHAT, "messages": [SAID], "store": True, "metadata": {"a": "b"}}
ITEMS = [
    {"id": "msg_a", "type": "message", "role": "user", "content": "a", "status": "completed"},
    {"role": "user", "content": [{"type": "input_image", "image_url": "u", "detail": "low"}]},
    {"role": "assistant", "content": [{"type": "output_text", "text": "a", "logprobs": [{}]}]},
    {"type": "function_call", "call_id": "c", "name": "n", "arguments": "{}"},
    {
        "type": "function_call_output",
        "call_id": "c",
        "output": [{"type": "input_text", "text": ""}],
    },
    {"type": "reasoning", "summary": [{"type": "summary_text", "text": "a"}]},
    {"type": "web_search_call", "action": {"type": "search", "sources": []}},
    {"type": "file_search_call", "queries": ["q"], "results": [{}]},
    {"type": "mcp_list_tools", "server_label": "s", "tools": [{}], "error": None},
]
COMPARED = ("64 bits", "400 digits", "nul", "odd object")
"""What databases see differently; the rest is refused before, whichever it is."""

IDS = ["%00", "%ED%A0%80", "%FF", "a" * 20_000, "'; DROP TABLE files; --", "%0A"]
QUERIES = [
    f"{name}={value}"
    for name, values in {
        "limit": ["0", "-1", "abc", "1" * 30, "1" * 5000, "1.5", "", "%00", "1&limit=2", "NaN"],
        "order": ["ASC", "%00", "", "asc&order=desc", "random"],
        "after": ["%00", "%FF", "a&after=b", "x" * 20_000],
        "before": ["%00", "%ED%A0%80"],
        "filter": ["%00", "Completed", "a&filter=b"],
        "purpose": ["%00", "x" * 9000, "a&purpose=b"],
        "include_embeddings": ["maybe", "%00", ""],
        "include_metadata": ["2"],
        "include": ["%00", "reasoning", "a&include=b"],
        "include[]": ["%ED%A0%80"],
        "version": ["0", "-1", "abc", "1" * 30, "1" * 5000, "%00", "2147483648"],
        "model": ["%00", "%FF"],
        "metadata[a]": ["%00", "x" * 9000, "%ED%A0%80"],
        "metadata[%00]": ["a"],
        "metadata[": ["a"],
        "%00": ["%00"],
        "unknown[]": ["1"],
    }.items()
    for value in values
]


@pytest.fixture(scope="module")
async def embedding() -> AsyncIterator[FakeVllm]:
    async with FakeVllm([MODEL], kind="embedding") as server:
        yield server


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def sections(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings of a gateway on either database."""
    if request.param == "sqlite":
        return {}
    postgres = request.getfixturevalue("postgres")
    template = request.getfixturevalue("postgres_template")
    return {"database": {"url": postgres.create_database(template)}}


@pytest.fixture(scope="module")
async def running(
    sections: dict[str, Any], embedding: FakeVllm, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[InProcessGateway]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gateway.app, "_vector_index", lambda *_: MemoryVectorIndex())
        async with (
            FakeVllm([CHAT]) as chat,
            InProcessGateway(
                discover=[embedding.url, chat.url],
                models=[MODEL, CHAT],
                data_dir=str(tmp_path_factory.mktemp("junk")),
                traced=False,
                ingestion={"embedded_worker": False, "attach_wait_seconds": 0},
                tools={"allowed_hosts": ["127.0.0.1"]},
                **sections,
            ) as started,
        ):
            yield started


@pytest.fixture
async def http(running: InProcessGateway) -> AsyncIterator[httpx.AsyncClient]:
    async with running.client() as client:
        yield client


@pytest.fixture
async def there(http: httpx.AsyncClient) -> dict[str, str]:
    """The ids of one of each, to be put into paths and bodies."""
    file = await http.post("/v1/files", files={"file": b"a"}, data={"purpose": "assistants"})
    store = await http.post("/v1/vector_stores", json={})
    upload = await http.post(
        "/v1/uploads",
        json={"bytes": 1, "filename": "a", "mime_type": "a/b", "purpose": "assistants"},
    )
    lines = await http.post("/v1/files", files={"file": b"{}"}, data={"purpose": "batch"})
    ids = {
        "lines": lines.json()["id"],
        "file": file.json()["id"],
        "store": store.json()["id"],
        "upload": upload.json()["id"],
    }
    made = f"/v1/vector_stores/{ids['store']}/file_batches"
    batch = await http.post(made, json={"file_ids": [ids["file"]]})
    talk = await http.post("/v1/conversations", json={"items": [SAID]})
    prompt = await http.post("/v1/prompts", json={"prompt": "{{ a }}"})
    completion = await http.post("/v1/chat/completions", json=ASKED)
    return ids | {
        "batch": batch.json()["id"],
        "conversation": talk.json()["id"],
        "prompt": prompt.json()["prompt_id"],
        "completion": completion.json()["id"],
    }


def bodies(there: dict[str, str]) -> dict[str, Any]:
    """For each path a body with all that it knows."""
    store = f"/v1/vector_stores/{there['store']}"
    chunking = {
        "type": "static",
        "static": {"max_chunk_size_tokens": 800, "chunk_overlap_tokens": 400},
    }
    contextual = {
        "type": "contextual",
        "contextual": {"model_id": "m", "context_prompt": "p", "timeout_seconds": 1},
    }
    ranking = {
        "ranker": "weighted",
        "score_threshold": 0.1,
        "alpha": 0.5,
        "impact_factor": 60,
        "weights": {"vector": 1, "keyword": 1, "neural": 1},
        "model": "m",
        "hybrid_search": {"embedding_weight": 1, "text_weight": 1},
    }
    filters = {
        "type": "and",
        "filters": [
            {"type": "eq", "key": "a", "value": 1},
            {"type": "in", "key": "filename", "value": ["a"]},
        ],
    }
    return {
        "/v1/uploads": {
            "bytes": 1,
            "filename": "a",
            "mime_type": "text/plain",
            "purpose": "assistants",
            "expires_after": {"anchor": "created_at", "seconds": 3600},
        },
        f"/v1/uploads/{there['upload']}/complete": {"part_ids": ["part_1"], "md5": "0" * 32},
        "/v1/vector_stores": {
            "name": "a",
            "description": "b",
            "file_ids": [there["file"]],
            "chunking_strategy": chunking,
            "expires_after": {"anchor": "last_active_at", "days": 1},
            "metadata": {"a": "b", "embedding_dimension": DIMENSION, "embedding_model": MODEL},
            "embedding_model": MODEL,
            "embedding_dimension": DIMENSION,
            "provider_id": "milvus",
        },
        store: {
            "name": "a",
            "expires_after": {"anchor": "last_active_at", "days": 1},
            "metadata": {"a": "b"},
        },
        f"{store}/files": {
            "file_id": there["file"],
            "attributes": {"a": "b", "c": 1},
            "chunking_strategy": contextual,
        },
        f"{store}/files/{there['file']}": {"attributes": {"a": "b", "c": 1}},
        f"{store}/file_batches": {
            "files": [
                {"file_id": there["file"], "attributes": {"a": 1}, "chunking_strategy": chunking}
            ],
            "attributes": {"a": 1},
            "chunking_strategy": chunking,
        },
        f"{store}/search": {
            "query": "q",
            "filters": filters,
            "max_num_results": 5,
            "ranking_options": ranking,
            "rewrite_query": False,
            "search_mode": "hybrid",
        },
        "/v1/conversations": {"items": ITEMS[:1], "metadata": {"a": "b"}},
        f"/v1/conversations/{there['conversation']}": {"metadata": {"a": "b"}},
        f"/v1/conversations/{there['conversation']}/items": {"items": ITEMS[1:]},
        "/v1/prompts": {"prompt": "{{ a }}", "variables": ["a"]},
        f"/v1/prompts/{there['prompt']}": {
            "prompt": "{{ a }}",
            "version": 1,
            "variables": ["a"],
            "set_as_default": True,
        },
        f"/v1/prompts/{there['prompt']}/set-default-version": {"version": 1},
        "/v1/chat/completions": ASKED,
        f"/v1/chat/completions/{there['completion']}": {"metadata": {"a": "b"}},
        "/v1/batches": {
            "input_file_id": there["lines"],
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": {"a": "b"},
            "output_expires_after": {"anchor": "created_at", "seconds": 3600},
            "idempotency_key": "key",
        },
        "/v1/vector-io/query": {
            "vector_store_id": there["store"],
            "query": [{"type": "text", "text": "q"}],
            "params": {
                "mode": "hybrid",
                "max_chunks": 5,
                "score_threshold": 0.1,
                "filters": {"type": "eq", "key": "a", "value": 1},
                "reranker_type": "rrf",
                "reranker_params": {"impact_factor": 60},
            },
        },
        "/v1/toolgroups": {
            "toolgroup_id": "mcp::a",
            "provider_id": "p",
            "mcp_endpoint": {"uri": "http://127.0.0.1:9/mcp"},
            "args": {"a": [1]},
        },
        "/v1/tool-runtime/invoke": {
            "tool_name": "knowledge_search",
            "kwargs": {"query": "q", "vector_store_ids": [there["store"]]},
        },
        "/v1/tool-runtime/rag-tool/query": {
            "content": [{"type": "text", "text": "q"}],
            "vector_store_ids": [there["store"]],
            "query_config": {"max_chunks": 1, "mode": "vector", "chunk_template": "{index}"},
        },
        "/v1/tool-runtime/rag-tool/insert": {
            "documents": [
                {
                    "document_id": "d",
                    "content": [{"type": "text", "text": "t"}],
                    "mime_type": "text/plain",
                    "metadata": {"a": 1, "filename": "f"},
                }
            ],
            "vector_store_id": there["store"],
            "chunk_size_in_tokens": 512,
        },
        "/v1/vector-io/insert": {
            "vector_store_id": there["store"],
            "chunks": [
                {
                    "content": [{"type": "text", "text": "t"}],
                    "chunk_id": "c",
                    "metadata": {"document_id": "d", "a": 1},
                    "chunk_metadata": {"document_id": "d", "source": "s", "content_token_count": 1},
                    "embedding": [0.5] * DIMENSION,
                }
            ],
        },
    }


def without_defects(answer: httpx.Response | Answer, sent: Any) -> None:
    """An answer that a careful gateway may give to nonsense."""
    shown = f"{sent}: {answer.status_code} {answer.text[:500]}"
    assert answer.status_code < 500, shown
    if answer.status_code < 400:
        return
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}, shown
    assert isinstance(error["message"], str), shown
    assert error["message"], shown
    assert len(answer.content) < 200_000, shown


def spoiled(body: Any, junk: bytes) -> list[tuple[str, bytes]]:
    """The body with one of its values replaced: for each value of it.

    Of several values in a list that are the same, as in an embedding, one is.
    """
    mark = "\x01junk\x01"
    made: list[tuple[str, bytes]] = []

    def walk(value: Any, path: str, rebuild: Any) -> None:
        made.append(
            (path, json.dumps(rebuild(mark)).encode().replace(json.dumps(mark).encode(), junk))
        )
        if isinstance(value, dict):
            for key, one in value.items():
                walk(
                    one,
                    f"{path}.{key}",
                    lambda new, key=key: rebuild({**value, key: new}),
                )
        elif isinstance(value, list):
            for place, one in enumerate(value):
                if one in value[:place]:
                    continue
                walk(
                    one,
                    f"{path}[{place}]",
                    lambda new, place=place: rebuild([*value[:place], new, *value[place + 1 :]]),
                )

    walk(body, "$", lambda new: new)
    return made


@pytest.mark.parametrize(
    ("sections", "junk"),
    [
        *(("postgresql", junk) for junk in VALUES),
        *(("sqlite", junk) for junk in COMPARED),
    ],
    indirect=["sections"],
    scope="module",
)
async def test_no_value_of_a_body_is_a_fault_of_the_gateway(running, there, junk):
    """Each value of each body in turn is what no caller should send."""
    async with Poster(running.port) as poster:
        for path, body in bodies(there).items():
            for place, content in spoiled(body, VALUES[junk]):
                answer = await poster.post(path, content)
                without_defects(answer, f"{path} {place} = {junk}")


async def test_no_id_in_a_path_is_a_fault_of_the_gateway(running, http, there):
    """Ids that no database can look for are ids of nothing."""
    known = bodies(there)
    for route in running.application.litestar.routes:
        names = [one for one in route.path_components if not isinstance(one, str)]
        if not names or "models" in route.path or "/openai/" in route.path:
            continue
        for method in set(route.methods) - {"OPTIONS"}:
            odd = [[junk] * len(names) for junk in IDS]
            if len(names) > 1:
                odd.append([there["store"], *["%00"] * (len(names) - 1)])
            for ids in odd:
                given = iter(ids)
                path = "/" + "/".join(
                    one if isinstance(one, str) else next(given) for one in route.path_components
                )
                body = next(
                    (
                        one
                        for at, one in known.items()
                        if at.rpartition("/")[2] == path.rpartition("/")[2]
                    ),
                    {"attributes": {}},
                )
                options = {"json": body} if method in {"POST", "PUT"} else {}
                answer = await http.request(method, path, **options)
                if method != "HEAD":
                    without_defects(answer, f"{method} {path[:200]}")
                assert answer.status_code >= 400, f"{method} {path[:200]} {answer.text}"


async def test_no_query_parameter_is_a_fault_of_the_gateway(http, there):
    """Wrong ones are refused by name, unknown ones passed by."""
    store = f"/v1/vector_stores/{there['store']}"
    lists = [
        "/v1/batches",
        "/v1/files",
        "/v1/vector_stores",
        f"{store}/files",
        f"{store}/file_batches/{there['batch']}/files",
        f"{store}/files/{there['file']}/content",
        f"/v1/conversations/{there['conversation']}/items",
        f"/v1/prompts/{there['prompt']}",
        "/v1/chat/completions",
        f"/v1/chat/completions/{there['completion']}/messages",
    ]
    for path, query in itertools.product(lists, QUERIES):
        without_defects(await http.get(f"{path}?{query}"), f"{path}?{query[:100]}")


@pytest.mark.parametrize("sections", ["postgresql"], indirect=True, scope="module")
@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "text/plain",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=\xff\xfe",
        'multipart/form-data; boundary="a\\"b',
        FORM,
    ],
)
async def test_no_content_type_is_a_fault_of_the_gateway(http, there, content_type):
    """With an empty body, with one of another kind, and with a form that has no end."""
    given = {} if content_type is None else {"content-type": content_type.encode("latin-1")}
    paths = [
        *bodies(there),
        "/v1/files",
        f"/v1/uploads/{there['upload']}/parts",
        "/v1alpha/file-processors/process",
    ]
    for path, content in itertools.product(paths, [b"", b"\xff\xfe\x00", b"--simple\r\n"]):
        answer = await http.post(path, content=content, headers=given)
        without_defects(answer, f"{path} {content_type!r} {content!r}")
        if content == b"\xff\xfe\x00":
            assert answer.status_code >= 400


FIELDS: list[tuple[str, bytes]] = [
    ('name="purpose"', b"\xff"),
    ('name="purpose"', b"\x00"),
    ('name="purpose"', b"assistants"),
    ('name="expires_after"', b"[" * 5000),
    ('name="expires_after"', b'{"anchor":"created_at","seconds":' + b"1" * 5000 + b"}"),
    ('name="expires_after"', rb'{"anchor":"\ud800","seconds":1}'),
    ('name="expires_after[seconds]"', b"1" * 5000),
    ('name="expires_after[seconds]"', b"NaN"),
    ('name="chunking_strategy"', b'{"type":"static","static":' + b"1" * 400 + b"}"),
    ('name="chunking_strategy"', b"[" * 5000),
    ('name="file_id"', b"\x00"),
    ('name=""', b""),
    ("", b""),
    ('name="file"; filename="\x00\x01"', b"a"),
    ("name=\"file\"; filename*=UTF-8''%00%FF", b"a"),
    ('name="data"; filename="a"', b""),
]


@pytest.mark.parametrize("sections", ["postgresql"], indirect=True, scope="module")
async def test_no_field_of_a_form_is_a_fault_of_the_gateway(http, there):
    """In front of the file and behind it, alone and together."""
    paths = {
        "/v1/files": "file",
        f"/v1/uploads/{there['upload']}/parts": "data",
        "/v1alpha/file-processors/process": "file",
    }
    for (path, file), odd in itertools.product(paths.items(), FIELDS):
        whole = (f'name="{file}"; filename="a.txt"', b"text")
        for parts in ([odd], [odd, whole], [whole, odd]):
            answer = await http.post(path, content=form(*parts), headers={"content-type": FORM})
            without_defects(answer, f"{path} {parts}")
