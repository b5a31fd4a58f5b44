"""`understudy ingest --on kubeflow`, against an API server of Kubeflow Pipelines."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from gateway.cli import main
from tests.support.kubeflow.api import Fault, PipelinesApi, Script

GOING_WELL: Script = [
    ("PENDING", {}),
    ("RUNNING", {"root-driver": "SUCCEEDED", "plan": "RUNNING"}),
    ("RUNNING", {"plan": "SUCCEEDED", "convert": "RUNNING", "convert#2": "PENDING"}),
    ("SUCCEEDED", {"plan": "SUCCEEDED", "convert": "SUCCEEDED", "convert#2": "SUCCEEDED"}),
]
FAILING: Script = [
    ("RUNNING", {"report": "SUCCEEDED"}),
    ("FAILED", {"report": "SUCCEEDED", "verdict": "FAILED"}),
]


@pytest.fixture
def api() -> Iterator[PipelinesApi]:
    with PipelinesApi(GOING_WELL) as started:
        yield started


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Settings that are enough for a run."""
    file = tmp_path / "understudy.yaml"
    settings = {
        "image": "understudy:1",
        "gateway_url": "http://understudy:8321/v1",
        "trusted_ca_config_map": "authorities",
        "poll_seconds": 0.01,
    }
    file.write_text(yaml.safe_dump({"kubeflow": settings}))
    return file


def ingest(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["ingest", "--on", "kubeflow", *map(str, arguments)])


def run(api: PipelinesApi, config: Path, *arguments: object) -> Result:
    given = (
        "--config",
        config,
        "--endpoint",
        api.url,
        "--bucket",
        "manuals",
        "--store",
        "Handbook",
    )
    return ingest(*given, *arguments)


def test_a_run_is_started_and_followed(api: PipelinesApi, config: Path):
    """Each change is one line, tasks of a loop are counted, and the cluster's nodes left out."""
    result = run(api, config)
    assert result.exit_code == 0, result.output
    first, *lines = result.output.splitlines()
    assert re.fullmatch(r"run [\w-]+ \(ingest manuals/ .+\) was started", first)
    assert lines == [
        "run: PENDING",
        "plan: 1 RUNNING",
        "run: RUNNING",
        "plan: 1 SUCCEEDED",
        "convert: 1 PENDING, 1 RUNNING",
        "convert: 2 SUCCEEDED",
        "run: SUCCEEDED",
    ]


def test_options_become_the_pipelines_arguments(
    api: PipelinesApi, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What is given on the command line wins over the settings."""
    monkeypatch.setenv("TRACEPARENT", f"00-{'1' * 32}-{'2' * 16}-01")
    token = tmp_path / "token"
    token.write_text("sha256~secret")
    api.token = "sha256~secret"
    result = run(
        api,
        config,
        *("--prefix", "2026/", "--experiment", "docs", "--namespace", "team", "--parallelism", 9),
        *("--attribute", "year=2026", "--chunk-size", 400, "--embedding-model", "bge"),
        *("--token-file", token, "--no-wait"),
    )
    assert result.exit_code == 0, result.output
    assert result.output.count("\n") == 1
    [sent] = api.started
    assert sent["runtime_config"]["parameters"] == {
        "gateway": "http://understudy:8321/v1",
        "bucket": "manuals",
        "store": "Handbook",
        "prefix": "2026/",
        "s3_endpoint": "",
        "s3_region": "",
        "embedding_model": "bge",
        "chunk_size": 400,
        "chunk_overlap": 200,
        "documents_per_task": 20,
        "attributes": {"year": 2026},
        "ca_file": "/etc/understudy/ca/ca-bundle.crt",
        "traceparent": f"00-{'1' * 32}-{'2' * 16}-01",
    }
    [experiment] = api.experiments
    assert (experiment["display_name"], experiment["namespace"]) == ("docs", "team")
    tasks = sent["pipeline_spec"]["pipeline_spec"]["root"]["dag"]["tasks"].values()
    assert [one["iteratorPolicy"] for one in tasks if "iteratorPolicy" in one] == [
        {"parallelismLimit": 9}
    ]


def test_a_run_that_fails_says_where(api: PipelinesApi, config: Path):
    """The status is 1, and the task and its pod are named; the verdict leads to the report."""
    api.script = FAILING
    result = run(api, config)
    assert result.exit_code == 1
    assert "has ended: FAILED. Run failed" in result.output
    assert "  verdict (pod understudy-ingestion-1): Error (exit code 1)" in result.output
    assert "The task `report` says which and why." in result.output


def test_a_cancelled_run_is_no_success(api: PipelinesApi, config: Path):
    """The status is 1."""
    api.script = [("CANCELING", {}), ("CANCELED", {"plan": "CANCELED"})]
    result = run(api, config)
    assert result.exit_code == 1
    assert "has ended: CANCELED" in result.output


def test_a_run_can_be_followed_later(api: PipelinesApi, config: Path):
    """By its id; none is started, and nothing else has to be given."""
    run(api, config, "--no-wait")
    [started] = api.started
    result = ingest("--config", config, "--endpoint", api.url, "--follow", started["run_id"])
    assert result.exit_code == 0, result.output
    assert result.output.endswith("run: SUCCEEDED\n")
    assert len(api.started) == 1


def test_a_refusal_while_following_leaves_the_run_going(api: PipelinesApi, config: Path):
    """What was started is not lost: the message says how to follow it."""
    run(api, config, "--no-wait")
    [started] = api.started
    api.faults.append(Fault("GET", f"/runs/{started['run_id']}", 401))
    result = ingest("--config", config, "--endpoint", api.url, "--follow", started["run_id"])
    assert result.exit_code == 1
    assert "refused the token" in result.output
    assert f"--on kubeflow --follow {started['run_id']}" in result.output


def test_ctrl_c_leaves_the_run_going(api: PipelinesApi, config: Path):
    """The status is 130, and the message says how to follow it."""
    api.script = [("RUNNING", {})]
    script = Path(sys.executable).with_name("understudy")
    process = subprocess.Popen(
        [
            *(script, "ingest", "--on", "kubeflow", "--config", config, "--endpoint", api.url),
            *("--bucket", "manuals", "--store", "Handbook"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # A shell's background job ignores it, and would hand that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    try:
        assert api.read.wait(30)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130, said
    [started] = api.started
    assert f"understudy ingest --on kubeflow --follow {started['run_id']}" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--on", "kubeflow"), "needs --bucket and --store"),
        (("--on", "kubeflow", "--bucket", "b", "--store", "s"), "kubeflow.image: needed"),
        (("--on", "kubeflow", "--bucket", "b", "--store", "s", "."), "no PATH"),
        (("--on", "kubeflow", "--follow", "run"), "kubeflow.url: expected"),
        ((".", "--store", "s", "--bucket", "b"), "--bucket is for --on kubeflow"),
        ((".", "--store", "s", "--no-wait"), "--wait is for --on kubeflow"),
        (("--store", "s"), "Missing argument 'PATH...'"),
        ((".",), "Missing option '--store'"),
        (("--on", "kubeflow", "--attribute", "etag=1"), "'etag' is set for each file"),
    ],
)
def test_what_is_missing_or_out_of_place_is_said(arguments: tuple[str, ...], said: str):
    """Before anything is done."""
    result = CliRunner().invoke(main, ["ingest", *arguments])
    assert result.exit_code != 0
    assert said in result.output
