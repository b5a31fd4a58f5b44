"""What an InferenceService says becomes a backend: address, name, weight, token, authority."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from adapters.kubernetes.inference_service import Served, served_by
from adapters.kubernetes.watch import Listed, Metadata
from gateway.settings import BackendSettings, KServeSettings
from tests.support.kubernetes import inference_service

INSIDE = "http://granite-predictor.models.svc.cluster.local"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A service account's, as on OpenShift."""
    (tmp_path / "token").write_text("t")
    (tmp_path / "service-ca.crt").write_text("c")
    return tmp_path


def served(one: dict[str, Any], folder: Path, **settings: Any) -> Served | None:
    metadata = msgspec.convert(one["metadata"], Metadata)
    listed = Listed(metadata=metadata, raw=msgspec.Raw(json.dumps(one).encode()))
    return served_by(listed, KServeSettings(enabled=True, **settings), folder=folder)


def backend(one: dict[str, Any], folder: Path, **settings: Any) -> BackendSettings:
    found = served(one, folder, **settings)
    assert found is not None
    return found.backend


def test_a_plain_one_is_a_model_of_its_name(folder: Path):
    """KServe's runtimes serve under the InferenceService's name; its pods are backends each."""
    found = served(inference_service("granite", url=f"{INSIDE}:8080"), folder)
    assert found == Served(
        service="models/granite",
        model="granite",
        backend=BackendSettings(url=f"{INSIDE}:8080", model="granite", resolve=True),
    )


@pytest.mark.parametrize("change", [{"ready": False}, {"raw": False}])
def test_one_that_is_not_ready_or_has_no_address_serves_nothing(change, folder: Path):
    """Nothing to call, nothing to list."""
    assert served(inference_service("granite", **change), folder) is None


def test_one_that_is_being_deleted_serves_nothing(folder: Path):
    """Its pods are going already."""
    one = inference_service("granite", url=INSIDE)
    one["metadata"]["deletionTimestamp"] = "2026-11-20T10:00:00Z"
    assert served(one, folder) is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"url": INSIDE}, f"{INSIDE}:8080"),
        ({"url": f"{INSIDE}:80"}, f"{INSIDE}:80"),
        ({"url": "https://granite-predictor.models.svc.cluster.local:8443"}, None),
        ({}, "http://granite-predictor.models.svc:8080"),
        (
            {"public_url": "https://granite.apps.example.com"},
            "http://granite-predictor.models.svc:8080",
        ),
        (
            {"public_url": "https://granite.apps.example.com", "raw": False},
            "https://granite.apps.example.com",
        ),
        ({"url": "http://granite.models.svc.cluster.local", "raw": False}, None),
    ],
    ids=["no port", "port", "tls", "headless", "headless and public", "public", "knative"],
)
def test_the_address_is_inside_the_cluster_where_it_can_be(given, expected, folder: Path):
    """A headless service has its pods' port, which KServe's address may leave out."""
    found = backend(inference_service("granite", **given), folder)
    assert found.url == (expected or given["url"])


@pytest.mark.parametrize(
    ("args", "name"),
    [
        (["--port=8080", "--served-model-name=ibm/granite"], "ibm/granite"),
        (["--served-model-name", "ibm/granite"], "ibm/granite"),
        (["--served-model-name={{.Name}}"], "granite"),
        (["--max-model-len=8192"], "granite"),
    ],
)
def test_the_name_that_vllm_uses_is_read_from_its_arguments(args, name, folder: Path):
    """As KServe fills them in."""
    assert backend(inference_service("granite", url=INSIDE, args=args), folder).model == name


def test_annotations_say_more(folder: Path):
    """Model, aliases, kind, weight, priority, and what vLLM calls it."""
    one = inference_service(
        "granite-w4a16",
        url=INSIDE,
        model="granite",
        aliases="gpt-4o, small",
        kind="chat",
        weight="3",
        priority="1",
        served_model="granite-quantized",
    )
    found = served(one, folder)
    assert found is not None
    assert (found.model, found.aliases, found.kind) == ("granite", ("gpt-4o", "small"), "chat")
    assert (found.backend.weight, found.backend.priority) == (3, 1)
    assert found.backend.model == "granite-quantized"


def test_a_label_does_where_there_is_no_annotation(folder: Path):
    """And another prefix than ours, if the settings say so."""
    one = inference_service("a", url=INSIDE, labels={"acme.org/model": "granite"})
    found = served(one, folder, prefix="acme.org")
    assert found is not None
    assert found.model == "granite"


def test_a_wrong_annotation_is_logged_and_left_out(folder: Path, caplog: pytest.LogCaptureFixture):
    """One team's slip of the pen takes no model away."""
    one = inference_service("granite", url=INSIDE, weight="much", priority="-1", kind="magic")
    found = served(one, folder)
    assert found is not None
    assert (found.backend.weight, found.backend.priority, found.kind) == (1, 0, None)
    assert len(caplog.records) == 3
    assert "models/granite: understudy.dev/weight is 'much'" in caplog.text


def test_a_token_goes_only_to_those_that_ask_for_one(folder: Path):
    """The service account's, or the one of the settings."""
    plain = inference_service("granite", url=INSIDE)
    guarded = inference_service("granite", url=INSIDE, auth="true")
    assert backend(plain, folder).api_key_file is None
    assert backend(guarded, folder).api_key_file == str(folder / "token")
    assert backend(guarded, folder, services_token_file="/t").api_key_file == "/t"


def test_the_authority_of_services_is_openshifts(folder: Path):
    """For addresses inside; one of the settings is for all."""
    inside = inference_service("a", url="https://a.models.svc:8443")
    public = inference_service("a", public_url="https://a.example.com", raw=False)
    assert backend(inside, folder).ca_file == str(folder / "service-ca.crt")
    assert backend(public, folder).ca_file is None
    assert backend(public, folder, services_ca_file="/ca").ca_file == "/ca"


@pytest.mark.parametrize("url", ["ftp://a", "http://[", "http://u:p@a", "http://a:99999"])
def test_a_strange_address_is_none(url: str, folder: Path):
    """It is the cluster's status, and yet nothing to trust blindly."""
    assert served(inference_service("granite", url=url), folder) is None


@pytest.mark.parametrize("status", [{"conditions": "Ready"}, {"address": 7}, 3])
def test_another_shape_is_left_out(status, folder: Path):
    """A newer KServe's, say; the others stay."""
    one = inference_service("granite", url=INSIDE)
    one["status"] = status
    assert served(one, folder) is None
