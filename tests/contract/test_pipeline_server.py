"""What the application may rely on of any `PipelineServer`, run on every adapter there is.

A new adapter adds its name to ``ADAPTERS`` and passes the same suite.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from adapters.kubeflow.server import KubeflowServer
from gateway.ports import PipelineServer, PipelineServerFailed
from gateway.settings import KubeflowSettings
from tests.support.gateway import free_port
from tests.support.kubeflow.api import Fault, PipelinesApi

pytestmark = pytest.mark.anyio

ADAPTERS: dict[str, Callable[[KubeflowSettings], PipelineServer]] = {
    "kubeflow": lambda settings: KubeflowServer(settings, pause=0.001)
}


@pytest.fixture
def api() -> Iterator[PipelinesApi]:
    with PipelinesApi([("RUNNING", {"plan": "RUNNING"}), ("SUCCEEDED", {})]) as started:
        yield started


@pytest.fixture(params=ADAPTERS)
async def make(request):
    """Makes clients, which are closed at the end."""
    made: list[PipelineServer] = []

    def one(url: str, **settings: Any) -> PipelineServer:
        server = ADAPTERS[request.param](KubeflowSettings(url=url, **settings))
        made.append(server)
        return server

    yield one
    for server in made:
        await server.aclose()


async def start(server: PipelineServer, name: str = "first", parallelism: int = 3):
    return await server.start(name, {"bucket": "b"}, experiment="docs", parallelism=parallelism)


async def test_a_run_is_started_as_it_is_set_up(make, api):
    """In a new experiment, with the settings' image, secrets and environment."""
    server = make(
        api.url,
        image="registry.example.com/understudy:1",
        namespace="team",
        s3_secret="minio",
        gateway_secret="key",
        trusted_ca_config_map="odh-trusted-ca-bundle",
        environment={"UNDERSTUDY_DOCUMENTS__OCR": "true"},
        service_account="pipeline-runner",
        pipeline_root="s3://artifacts/understudy",
    )
    run = await start(server)
    assert (run.name, run.state, run.is_over) == ("first", "PENDING", False)
    [experiment] = api.experiments
    assert (experiment["display_name"], experiment["namespace"]) == ("docs", "team")
    [sent] = api.started
    assert sent["experiment_id"] == experiment["experiment_id"]
    assert sent["service_account"] == "pipeline-runner"
    assert sent["runtime_config"] == {
        "parameters": {"bucket": "b"},
        "pipeline_root": "s3://artifacts/understudy",
    }
    pipeline = sent["pipeline_spec"]["pipeline_spec"]
    containers = [one["container"] for one in pipeline["deploymentSpec"]["executors"].values()]
    assert {one["image"] for one in containers} == {"registry.example.com/understudy:1"}
    assert all(
        one["env"] == [{"name": "UNDERSTUDY_DOCUMENTS__OCR", "value": "true"}] for one in containers
    )
    [loop] = [one for one in pipeline["root"]["dag"]["tasks"].values() if "iteratorPolicy" in one]
    assert loop["iteratorPolicy"] == {"parallelismLimit": 3}
    platform = sent["pipeline_spec"]["platform_spec"]["platforms"]["kubernetes"]
    insert = platform["deploymentSpec"]["executors"]["exec-insert"]
    assert {one["secretName"]: len(one["keyToEnv"]) for one in insert["secretAsEnv"]} == {
        "minio": 3,
        "key": 1,
    }
    assert insert["configMapAsVolume"] == [
        {"configMapName": "odh-trusted-ca-bundle", "mountPath": "/etc/understudy/ca"}
    ]


async def test_what_is_not_set_up_is_not_asked_for(make, api):
    """A Secret or a ConfigMap that is missing would keep pods from starting."""
    await start(make(api.url, s3_endpoint="https://minio:9000"))
    [sent] = api.started
    text = json.dumps(sent["pipeline_spec"]["platform_spec"])
    for absent in ("understudy-gateway", "configMap", "AWS_S3_ENDPOINT", "optional"):
        assert absent not in text


async def test_the_experiment_is_found_among_many(make, api):
    """On a later page, beside others that begin with its name."""
    for name in ("docs-old", "docs-2", "docs-3", "docs"):
        wanted = api.experiment(name)
    await start(make(api.url))
    assert len(api.experiments) == 4
    assert api.started[0]["experiment_id"] == wanted["experiment_id"]


async def test_an_experiment_that_another_makes_meanwhile_is_taken(make, api):
    """A 409 is no error: it is looked for again."""
    api.faults.append(Fault("POST", "/experiments", "lose"))  # made, and the answer is lost
    await start(make(api.url))
    assert len(api.experiments) == 1


async def test_a_run_shows_its_tasks(make, api):
    """Their states, pods and errors; the run is over when it says so."""
    api.script = [("FAILED", {"root-driver": "SUCCEEDED", "plan": "FAILED"})]
    server = make(api.url)
    run = await server.run((await start(server)).id)
    assert (run.state, run.is_over, run.error) == ("FAILED", True, "Run failed")
    plan = run.tasks[1]
    assert (plan.name, plan.state) == ("plan", "FAILED")
    assert (plan.pods, plan.error) == (["understudy-ingestion-1"], "Error (exit code 1)")


@pytest.mark.parametrize("what", ["drop", "lose", 503])
async def test_a_run_is_started_once(make, api, what):
    """Whether the connection breaks before or after it was started, there is one run."""
    api.faults.append(Fault("POST", "/runs", what, times=2 if what != "lose" else 1))
    server = make(api.url)
    run = await start(server)
    assert [one["run_id"] for one in api.started] == [run.id]


async def test_reading_outlasts_an_outage(make, api):
    """Dropped connections and 503 are tried again."""
    server = make(api.url)
    run = await start(server)
    api.faults += [Fault("GET", f"/runs/{run.id}", what, times=2) for what in ("drop", 503)]
    assert (await server.run(run.id)).state == "RUNNING"
    api.faults.append(Fault("GET", f"/runs/{run.id}", 503, times=99))
    with pytest.raises(PipelineServerFailed, match="answered 503"):
        await server.run(run.id)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (401, r"refused the token \(401\).*as told"),
        (403, r"doesn't allow this.*\(403\).*as told"),
        ("login", "redirected, most likely to a login page"),
        ("page", "something else than JSON"),
    ],
)
async def test_a_refusal_says_what_helps(make, api, what, said):
    """At once, since time mends none of these, and without the token."""
    api.faults.append(Fault("GET", "/experiments", what, times=99))
    with pytest.raises(PipelineServerFailed, match=said) as refused:
        await start(make(api.url, token="the-token"))
    assert "the-token" not in str(refused.value)
    assert len(api.requests) == 1


async def test_an_unknown_run_is_said(make, api):
    """By its id."""
    with pytest.raises(PipelineServerFailed, match="There is no run 'nowhere'"):
        await make(api.url).run("nowhere")


async def test_a_server_that_is_away_is_said(make):
    """After a few attempts."""
    with pytest.raises(PipelineServerFailed, match="can't be reached") as failed:
        await start(make(f"http://127.0.0.1:{free_port()}"))
    assert failed.value.transient


async def test_the_token_is_read_again(make, api, tmp_path: Path):
    """A service account's is replaced while a run is followed; a wrong one is refused."""
    file = tmp_path / "token"
    file.write_text("one\n")
    api.token = "one"
    server = make(api.url, token_file=str(file))
    run = await start(server)
    api.token = "two"
    with pytest.raises(PipelineServerFailed, match="401"):
        await server.run(run.id)
    file.write_text("two\n")
    assert (await server.run(run.id)).id == run.id
    file.unlink()
    with pytest.raises(PipelineServerFailed, match=r"kubeflow\.token_file can't be read"):
        await server.run(run.id)


async def test_a_private_authority_is_trusted_when_named(make, tmp_path: Path):
    """Without it the server is not spoken to."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    with PipelinesApi(tls=context) as api:
        assert (await start(make(api.url, ca_file=str(file)))).state == "PENDING"
        with pytest.raises(PipelineServerFailed, match="can't be reached"):
            await start(make(api.url))


async def test_settings_that_can_not_be_used_are_named(make, tmp_path: Path):
    """Before anything is sent."""
    with pytest.raises(PipelineServerFailed, match=r"kubeflow\.url"):
        make("ds-pipeline.example.com")
    with pytest.raises(PipelineServerFailed, match=r"kubeflow\.ca_file"):
        make("https://ds-pipeline.example.com", ca_file=str(tmp_path / "none"))
