"""`understudy check` reaches each system as the server would, says in words what is wrong and what
helps, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from click.testing import CliRunner, Result

from adapters.minio import MinioObjectStore
from gateway.app import systems_of
from gateway.audit.entry import row_of_command
from gateway.check.command import check_command
from gateway.database.migrate import newest_revision
from gateway.identity.commands import keys_commands
from gateway.settings import ObjectSettings
from tests.real.s3.server import S3Server
from tests.support.checks import check, check_one, denying
from tests.support.detectors import DetectorServer
from tests.support.docling_serve import DoclingServe
from tests.support.gateway import free_port
from tests.support.issuer import Issuer
from tests.support.otlp import Collector
from tests.support.postgres import PASSWORD, PostgresServer
from tests.support.search_engines import KEY, SearchEngine
from tests.support.small_server import SmallServer
from tests.support.tool_servers import ToolServing
from tests.support.upstream import FakeVllm, Whole

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
SECRET = "a-password-that-nobody-may-see"


def server_context(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    return context


def nobody() -> str:
    """A URL where nothing listens."""
    return f"http://127.0.0.1:{free_port()}"


# -- model servers ---------------------------------------------------------------------------------


async def test_a_model_server_is_asked_for_one_token(upstream: FakeVllm, tmp_path: Path):
    """What is listed is used: one token, and it says how long that took."""
    found = await check_one(tmp_path, "model server", discover=[upstream.url])
    assert (found.state, found.address) == ("ok", upstream.root_url)
    assert re.fullmatch(r"fake-chat \(chat\) chatted in [\d.]+ s", found.found)
    [body] = [one.json for one in upstream.requests_to(CHAT) if one.method == "POST"]
    assert body["max_tokens"] == 1


async def test_an_embedding_model_makes_a_vector(embedding_upstream: FakeVllm, tmp_path: Path):
    """And its dimensions are said."""
    found = await check_one(tmp_path, "model server", discover=[embedding_upstream.url])
    size = embedding_upstream.vllm.dimensions
    assert (found.state, f"made a vector of {size} dimensions" in found.found) == ("ok", True)


async def test_a_wrong_port_is_said(tmp_path: Path):
    """Refused, with what to compare."""
    found = await check_one(tmp_path, "model server", discover=[nobody()])
    assert found.state == "failed"
    assert found.found == "The model server can't be reached: Connection refused."
    assert "Compare the address" in (found.mend or "")


async def test_a_wrong_token_is_said_and_not_shown(tmp_path: Path):
    """Neither in the words nor in the address."""
    async with FakeVllm(["fake-chat"], api_key="right-token") as upstream:
        found = await check_one(
            tmp_path, "model server", discover=[{"url": upstream.url, "api_key": "wrong-token"}]
        )
    assert found.state == "failed"
    assert "refused the gateway's credentials (401)" in found.found
    assert "api_key" in (found.mend or "")
    assert "wrong-token" not in repr(found)


async def test_an_unknown_authority_is_said(private_ca: trustme.CA, tmp_path: Path):
    """And with `ca_file` the same server is fine."""
    ca_file = tmp_path / "ca.pem"
    private_ca.cert_pem.write_to_path(str(ca_file))
    async with FakeVllm(["fake-chat"], ssl_context=server_context(private_ca)) as upstream:
        bad = await check_one(tmp_path, "model server", discover=[upstream.url])
        good = await check_one(
            tmp_path, "model server", discover=[{"url": upstream.url, "ca_file": str(ca_file)}]
        )
    assert bad.state == "failed"
    assert "certificate" in bad.found
    assert "ca_file" in (bad.mend or "")
    assert good.state == "ok"


async def test_a_configured_model_that_is_not_served_is_said(upstream: FakeVllm, tmp_path: Path):
    """With what is served instead, and the setting to correct."""
    backend = {"url": upstream.url, "model": "granite-w4a16"}
    found = await check_one(
        tmp_path, "model server", models=[{"id": "granite", "backends": [backend]}]
    )
    assert found.state == "failed"
    assert found.found == "granite isn't served: there is no granite-w4a16, but fake-chat"
    assert "models.0.backends.0.model" in (found.mend or "")


async def test_a_model_that_is_listed_and_broken_is_said(upstream: FakeVllm, tmp_path: Path):
    """A dead engine still lists its models; only using one shows it."""
    body = json.dumps({"error": {"message": "EngineCore died", "code": 500}}).encode()
    upstream.behave(CHAT, lambda exchange: exchange.send(Whole(500, body)))
    found = await check_one(tmp_path, "model server", discover=[upstream.url])
    assert found.state == "failed"
    assert "lists fake-chat and doesn't answer" in found.found


async def test_a_server_that_hangs_is_given_up(upstream: FakeVllm, tmp_path: Path):
    """After the time that a look may take, and the others' looks have not waited for it."""
    upstream.behave(CHAT, lambda _: asyncio.sleep(60))
    found = await check(tmp_path, "model server", "data folder", seconds=2, discover=[upstream.url])
    assert [one.state for one in found] == ["failed", "ok"]
    assert "no answer within 4 s" in found[0].found


async def test_settings_that_name_models_are_compared(upstream: FakeVllm, tmp_path: Path):
    """With what the servers say they have."""
    found = await check(
        tmp_path,
        *("settings", "model server"),
        discover=[upstream.url],
        embedding={"default_model": "nowhere"},
        search={"rewrite_model": "fake-chat"},
    )
    [wrong] = [one for one in found if one.state == "failed"]
    assert "embedding.default_model names 'nowhere'" in wrong.found
    assert "there are: fake-chat" in (wrong.mend or "")


async def test_no_model_server_at_all_fails(tmp_path: Path):
    """As `understudy serve` would."""
    found = await check_one(tmp_path, "model server")
    assert (found.state, found.found) == ("failed", "there is no model server")


# -- database --------------------------------------------------------------------------------------


async def test_the_schema_is_current_behind_or_ahead(
    postgres: PostgresServer, postgres_url: str, tmp_path: Path
):
    """Behind is a warning, since the server upgrades it; ahead is a failure."""
    newest = newest_revision()
    name = postgres_url.rpartition("/")[2]

    async def look() -> Any:
        return await check_one(tmp_path, "database", database={"url": postgres_url})

    current = await look()
    assert current.state == "ok"
    assert f"schema {newest} is current" in current.found
    assert PASSWORD not in repr(current)
    postgres.run("UPDATE alembic_version SET version_num = '0001'", name)
    behind = await look()
    assert behind.state == "warning"
    assert f"schema 0001 is behind: this version works with {newest}" in behind.found
    assert "understudy db upgrade" in (behind.mend or "")
    postgres.run("UPDATE alembic_version SET version_num = '9999'", name)
    ahead = await look()
    assert ahead.state == "failed"
    assert "schema 9999 is ahead" in ahead.found


async def test_an_empty_database_stays_empty(postgres: PostgresServer, tmp_path: Path):
    """Looking makes no schema."""
    url = postgres.create_database()
    found = await check_one(tmp_path, "database", database={"url": url})
    assert found.state == "warning"
    assert "without a schema yet" in found.found
    tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    assert postgres.run(tables, url.rpartition("/")[2]) == [(0,)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ((PASSWORD, "wrong"), "refuses the user or the password"),
        ((r"/[^/]+$", "/nothing"), "has no database of this name"),
        ((r":\d+/", f":{free_port()}/"), "can't be reached"),
        ((r"@[^/]+/", "@nowhere.invalid/"), "can't be reached"),
    ],
    ids=["password", "name", "port", "host"],
)
async def test_why_postgresql_refuses_is_said(
    change, words, postgres: PostgresServer, tmp_path: Path
):
    """Which the API's callers don't learn, but who runs the gateway must."""
    url = re.sub(*change, postgres.create_database())
    found = await check_one(tmp_path, "database", database={"url": url})
    assert found.state == "failed"
    assert words in found.found
    assert found.mend
    assert PASSWORD not in repr(found)


async def test_nothing_is_made_in_an_empty_folder(tmp_path: Path):
    """SQLite, objects and Lite are only said to be made at the first start."""
    folder = tmp_path / "data"
    found = await check(folder, "data folder", "database", "objects", "vectors", seconds=20)
    assert [one.state for one in found] == ["ok"] * 4
    assert all("made at the first start" in one.found for one in found)
    assert not folder.exists()


async def test_sqlite_with_several_workers_is_warned_of(tmp_path: Path):
    """It works, one write at a time."""
    found = await check(tmp_path, "database", server={"workers": 4})
    assert [one.state for one in found] == ["warning", "ok"]
    assert "one write at a time" in found[0].found


# -- objects ---------------------------------------------------------------------------------------


@pytest.fixture
async def bucket(s3: S3Server) -> dict[str, Any]:
    """The section `objects` for a bucket that is there."""
    settings = s3.settings(bucket=f"check-{uuid.uuid4().hex}")
    store = MinioObjectStore(ObjectSettings(**settings))
    await store.start()
    await store.aclose()
    return settings


async def left_in(settings: dict[str, Any]) -> list[str]:
    store = MinioObjectStore(ObjectSettings(**settings))
    try:
        return [one.key async for one in store.list("")]
    finally:
        await store.aclose()


async def test_every_right_on_the_bucket_is_tried(bucket: dict[str, Any], tmp_path: Path):
    """And nothing is left in it."""
    found = await check_one(tmp_path, "objects", objects=bucket)
    assert (found.state, found.found) == ("ok", "written, read, listed and deleted, in parts too")
    assert await left_in(bucket) == []


async def test_a_missing_bucket_is_warned_of_and_not_made(s3: S3Server, tmp_path: Path):
    """The server makes it, if it may."""
    settings = s3.settings(bucket=f"check-{uuid.uuid4().hex}")
    for _ in range(2):
        found = await check_one(tmp_path, "objects", objects=settings)
        assert found.state == "warning"
        assert found.found == f"the bucket '{settings['bucket']}' does not exist"


@pytest.mark.parametrize("key", ["access_key", "secret_key"])
async def test_a_wrong_key_of_the_bucket_is_said(key: str, bucket: dict[str, Any], tmp_path: Path):
    """By the setting's name, and without the key."""
    found = await check_one(tmp_path, "objects", objects={**bucket, key: "quite-another-one"})
    assert found.state == "failed"
    assert f"objects.{key}" in (found.mend or "")
    assert "quite-another-one" not in repr(found)


@pytest.mark.parametrize(
    ("denied", "right", "state"),
    [
        (lambda method, path: method == "PUT", "s3:PutObject", "failed"),
        (lambda method, path: method == "GET" and "/small" in path, "s3:GetObject", "failed"),
        (lambda method, path: method == "GET" and "prefix" in path, "s3:ListBucket", "failed"),
        (lambda method, path: "delete" in path, "s3:DeleteObject", "failed"),
        (lambda method, path: "uploads" in path and method == "GET", "ListBucketMult", "warning"),
    ],
    ids=["put", "get", "list", "delete", "sweep"],
)
async def test_a_missing_right_is_named(
    denied, right, state, bucket: dict[str, Any], tmp_path: Path
):
    """As an S3 policy names it."""
    with denying(bucket["endpoint"], denied) as endpoint:
        found = await check(tmp_path, "objects", objects={**bucket, "endpoint": endpoint})
    assert found[-1].state == state
    assert right in (found[-1].mend or "")


# -- vectors ---------------------------------------------------------------------------------------


async def test_a_milvus_without_full_text_search_is_warned_of(milvus_server: str, tmp_path: Path):
    """And it is a failure where searches are hybrid by default."""
    section = {"vectors": {"uri": milvus_server}}
    found = await check(tmp_path, "vectors", **section)
    assert [one.state for one in found] == ["ok", "warning"]
    assert "written, searched and dropped" in found[0].found
    hybrid = await check(tmp_path, "vectors", search={"default_mode": "hybrid"}, **section)
    assert [one.state for one in hybrid] == ["ok", "failed"]


async def test_a_milvus_that_is_not_there_is_said(tmp_path: Path):
    """Its token isn't."""
    vectors = {"uri": nobody(), "token": "root:a-secret", "timeout_seconds": 2}
    found = await check_one(tmp_path, "vectors", vectors=vectors)
    assert found.state == "failed"
    assert "can't be reached" in found.found
    assert "a-secret" not in repr(found)


async def test_a_lite_that_another_program_has_open_is_said(tmp_path: Path):
    """A notebook on the same folder, for example."""
    data = tmp_path / "milvus-lite" / "data"
    data.mkdir(parents=True)
    with (data / "LOCK").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = await check_one(tmp_path, "vectors")
    assert found.state == "failed"
    assert "another process, which is no gateway" in found.found


# -- documents, tools, detectors, telemetry --------------------------------------------------------


async def test_docling_serve_converts_a_page(tmp_path: Path):
    """And a wrong key, or a wrong address, is said."""
    with DoclingServe(api_key="right") as serve:
        documents = {"converter": "docling-serve", "url": serve.url}
        good = await check_one(
            tmp_path, "docling-serve", seconds=20, documents={**documents, "api_key": "right"}
        )
        bad = await check_one(tmp_path, "docling-serve", documents={**documents, "api_key": "no"})
    gone = await check_one(tmp_path, "docling-serve", documents=documents)
    assert good.state == "ok"
    assert (bad.state, "documents.api_key" in (bad.mend or "")) == ("failed", True)
    assert (gone.state, gone.found) == ("failed", "docling-serve can't be reached.")


async def test_a_connector_lists_its_tools(tmp_path: Path):
    """By the protocol, with its token."""
    async with ToolServing(token="sesame") as server:
        one = {"id": "demo", "url": server.url}
        good = await check_one(
            tmp_path, "connector", tools={"connectors": [{**one, "authorization": "sesame"}]}
        )
        bad = await check_one(tmp_path, "connector", tools={"connectors": [one]})
    assert good.state == "ok"
    assert re.match(r"demo: \d+ tools, MCP [\d-]+ by streamable_http", good.found)
    assert (bad.state, "authorization" in (bad.mend or "")) == ("failed", True)


async def test_the_web_is_searched(tmp_path: Path):
    """Once, for one page; a wrong key is refused."""
    async with SearchEngine("brave") as engine:
        section = {"kind": "brave", "url": engine.url}
        good = await check_one(tmp_path, "web search", web_search={**section, "api_key": KEY})
        bad = await check_one(tmp_path, "web search", web_search={**section, "api_key": "wrong"})
    assert good.state == "ok"
    assert bad.state == "failed"
    assert "web_search.api_key" in (bad.mend or "")


async def test_a_detector_judges_a_text(tmp_path: Path):
    """With its token, or it says that there is none."""
    with DetectorServer(token="right") as server:
        one = {"name": "hap", "url": server.url}
        good = await check_one(
            tmp_path, "detector", moderation={"detectors": [{**one, "api_key": "right"}]}
        )
        bad = await check_one(tmp_path, "detector", moderation={"detectors": [one]})
    assert good.state == "ok"
    assert bad.state == "failed"
    assert "api_key" in (bad.mend or "")


async def test_an_empty_batch_goes_to_the_collector(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Of which it keeps nothing; where nothing listens, the export's own words are shown."""
    with Collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        good = await check(tmp_path, "OTLP traces", "OTLP metrics")
    assert [one.state for one in good] == ["ok", "ok"]
    assert collector.spans == []
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", nobody())
    bad = await check(tmp_path, "OTLP traces", "OTLP metrics")
    assert [one.state for one in bad] == ["failed", "failed"]
    assert all("nothing listens there" in one.found for one in bad)
    assert "4318" in (bad[0].mend or "")


async def test_telemetry_that_is_off_is_skipped(tmp_path: Path):
    """It is no failure to export nothing."""
    found = await check_one(tmp_path, "OTLP traces")
    assert found.state == "skipped"


# -- identity --------------------------------------------------------------------------------------


async def test_an_issuer_is_asked_for_its_keys(tmp_path: Path):
    """With a token that is nobody's; where it is away, the words say what was asked."""
    async with Issuer() as issuer:
        oidc = {"issuer": issuer.url, "audience": ["understudy"], "default_project": "ours"}
        identity = {"mode": "oidc", "oidc": oidc}
        good = await check_one(tmp_path, "identity oidc", identity=identity)
        issuer.claimed_issuer = "https://another.example.com"
        other = await check_one(tmp_path, "identity oidc", identity=identity)
    gone = await check_one(tmp_path, "identity oidc", identity=identity)
    assert (good.state, good.found) == ("ok", "its keys are fetched")
    assert (other.state, "another.example.com" in other.found) == ("failed", True)
    assert gone.state == "failed"
    assert "can't be fetched" in gone.found
    assert "identity.oidc.issuer" in (gone.mend or "")


async def test_the_right_to_review_tokens_is_tried(tmp_path: Path):
    """The role that gives it is named."""
    answers = {"code": 201}
    status = {"authenticated": False, "error": "token not found"}
    token = tmp_path / "token"
    token.write_text("own")
    async with SmallServer(lambda _: (answers["code"], {"status": status})) as api:
        kubernetes = {"api_url": api.url, "token_file": str(token), "ca_file": None}
        identity = {"mode": "kubernetes", "kubernetes": kubernetes}
        good = await check_one(tmp_path, "identity kubernetes", identity=identity)
        answers["code"] = 403
        bad = await check_one(tmp_path, "identity kubernetes", identity=identity)
    assert good.state == "ok"
    assert bad.state == "failed"
    assert "system:auth-delegator" in (bad.mend or "")


async def test_a_database_without_keys_lets_nobody_in(postgres_url: str, tmp_path: Path):
    """Which is a warning: the first one is made with a command."""
    sections = {"identity": {"mode": "api_keys"}, "database": {"url": postgres_url}}
    found = await check_one(tmp_path, "identity api_keys", **sections)
    assert (found.state, found.mend) == ("warning", "`understudy keys create`")
    keys = [*("create", "--project", "ours", "--name", "first")]
    made = CliRunner(env={"UNDERSTUDY_DATABASE__URL": postgres_url})
    assert (
        await asyncio.to_thread(made.invoke, keys_commands(row_of_command), keys)
    ).exit_code == 0
    found = await check_one(tmp_path, "identity api_keys", **sections)
    assert (found.state, found.found) == ("ok", "1 key")


async def test_a_store_of_limits_is_asked_to_count(redis_url: str, tmp_path: Path):
    """One that is there counts; one that isn't is told of without the URL's password."""
    found = await check_one(tmp_path, "limits", limits={"store": redis_url})
    assert (found.state, found.found) == ("ok", "counts for all replicas")
    away = f"redis://user:{SECRET}@127.0.0.1:1/0"
    found = await check_one(tmp_path, "limits", limits={"store": away})
    assert found.state == "failed"
    assert SECRET not in f"{found.address} {found.found} {found.mend}"
    assert await check(tmp_path, "limits", limits={"store": "memory"}) == []


async def test_an_open_port_without_identity_is_said(tmp_path: Path):
    """It is a failure, since the server wouldn't start, and a warning where somebody wanted it."""
    server = {"host": "0.0.0.0"}
    refused = await check_one(tmp_path, "identity none", server=server)
    wanted = await check_one(
        tmp_path, "identity none", server=server, identity={"allow_anonymous": True}
    )
    local = await check_one(tmp_path, "identity none")
    assert [one.state for one in (refused, wanted, local)] == ["failed", "warning", "ok"]


# -- files -----------------------------------------------------------------------------------------


async def test_certificates_that_expire_are_told(private_ca: trustme.CA, tmp_path: Path):
    """Valid, soon to end, ended, and no certificate at all."""
    now = datetime.now(UTC)
    ends = {"good": now + timedelta(days=400), "soon": now + timedelta(days=5), "old": now}
    found = {}
    for name, end in ends.items():
        issued = private_ca.issue_cert(
            "x", not_before=now - timedelta(days=9), not_after=end - timedelta(hours=1)
        )
        file = tmp_path / f"{name}.pem"
        file.write_bytes(issued.cert_chain_pems[0].bytes())
        found[name] = await check_one(tmp_path, "file", database={"ca_file": str(file)})
    (tmp_path / "none.pem").write_text("nothing")
    none = await check_one(tmp_path, "file", database={"ca_file": str(tmp_path / "none.pem")})
    states = {name: one.state for name, one in found.items()}
    assert states == {"good": "ok", "soon": "warning", "old": "failed"}
    assert "valid for 400 more days" in found["good"].found
    assert (none.state, "holds no certificate" in none.found) == ("failed", True)


async def test_an_empty_token_file_is_said(upstream: FakeVllm, tmp_path: Path):
    """Before a model server refuses what is in it."""
    file = tmp_path / "token"
    file.write_text("\n")
    backend = {"url": upstream.url, "api_key_file": str(file)}
    found = await check_one(tmp_path, "file", discover=[backend])
    assert (found.state, found.found) == ("failed", "discover.0.api_key_file: is empty")


async def test_files_of_what_is_not_used_do_not_count(tmp_path: Path):
    """A pod's token is named by default, and needed only where it is asked for."""
    assert await check(tmp_path, "file") == []
    kserve = {"ca_file": "/nowhere", "api_server": "https://a", "namespaces": ["a"]}
    assert await check(tmp_path, "file", kserve=kserve) == []
    found = await check_one(tmp_path, "file", kserve={**kserve, "enabled": True})
    assert (found.state, found.address) == ("failed", "/nowhere")


async def test_settings_without_effect_are_told(upstream: FakeVllm, tmp_path: Path):
    """A CA beside http://, PostgreSQL beside a replica's own disk."""
    found = await check(
        tmp_path,
        *("settings", "model server"),
        discover=[{"url": upstream.url, "ca_file": "/etc/ca.pem"}],
        database={"url": "postgresql+asyncpg://u:p@db/x"},
        limits={"store": "memory"},
    )
    warned = " ".join(one.found for one in found if one.state == "warning")
    assert "discover.0 has TLS files and an http:// address" in warned
    assert "files are on this replica's own disk" in warned
    assert "vectors are in Milvus Lite" in warned
    assert "each process lets in as much as is meant for all" in warned


# -- systems that hang ----------------------------------------------------------------------------


@pytest.fixture
def hole() -> Iterator[str]:
    """The address of what accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def test_systems_that_hang_hold_nothing_up(hole: str, tmp_path: Path):
    """Each is given up after its time, and the process ends, whatever its threads wait for."""
    config = tmp_path / "understudy.yaml"
    sections = {
        "discover": [f"http://{hole}"],
        "data_dir": str(tmp_path / "data"),
        "database": {"url": f"postgresql+asyncpg://u:p@{hole}/x"},
        "objects": {
            "kind": "minio",
            "endpoint": hole,
            "access_key": "abc",
            "secret_key": "abcdefgh",
            "secure": False,
        },
        "vectors": {"uri": f"http://{hole}"},
        "documents": {"converter": "docling-serve", "url": f"http://{hole}"},
    }
    config.write_text(json.dumps(sections))  # which is YAML as well
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "check", "--config", str(config), "--timeout", "2"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{hole}"},
    )
    assert done.returncode == 1
    assert done.stdout.count("no answer within") >= 5
    assert done.stderr == ""
    assert time.monotonic() - began < 60


# -- the command -----------------------------------------------------------------------------------


def run(*arguments: str, **environment: str) -> Result:
    variables = {"UNDERSTUDY_CONFIG": None, "UNDERSTUDY_DATA_DIR": None, **environment}
    command = check_command(systems_of, leave=lambda _: None)
    return CliRunner(env=variables).invoke(command, arguments, catch_exceptions=False)


def test_a_failure_is_the_exit_status(tmp_path: Path):
    """The table names the system, what is wrong and what helps; the last line counts."""
    result = run("--vllm", nobody(), "--data-dir", str(tmp_path / "data"))
    assert result.exit_code == 1
    assert re.search(
        r"^failed +model server +http://127.0.0.1:\d+ +The model server can't",
        result.output,
        re.MULTILINE,
    )
    assert "→ Compare the address" in result.output
    assert re.search(r"\d+ ok, 1 failed, 2 skipped$", result.output.strip())
    assert not (tmp_path / "data").exists()


def test_warnings_fail_only_if_strict(tmp_path: Path, postgres: PostgresServer):
    """`--json` has the same findings for machines."""
    config = tmp_path / "understudy.yaml"
    config.write_text(f"database: {{url: '{postgres.create_database()}'}}\n")
    arguments = ("--config", str(config), "--data-dir", str(tmp_path / "data"), "--json")
    with_failure = json.loads(run(*arguments).output)
    assert with_failure["ok"] is False
    by_system = {one["system"]: one for one in with_failure["findings"]}
    assert by_system["database"]["state"] == "warning"
    assert by_system["model server"]["state"] == "failed"
    assert set(by_system["database"]) == {
        *("system", "address", "state", "found", "mend", "seconds")
    }


def test_a_wrong_configuration_is_a_finding(tmp_path: Path):
    """In the table's and in JSON's form, with the key at fault."""
    config = tmp_path / "understudy.yaml"
    config.write_text("server: {prot: 1}\n")
    result = run("--config", str(config), "--json")
    assert result.exit_code == 1
    [finding] = json.loads(result.output)["findings"]
    assert (finding["system"], finding["state"]) == ("settings", "failed")
    assert "prot" in finding["found"]
