"""The variables that the chart sets are ones that the gateway or a library of its reads."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.configuration import load_settings
from tests.support.chart import (
    ROOT,
    VALUES,
    Manifest,
    changed,
    manifests_of,
    named,
    pod_of,
    render,
    values_of,
)

OF_THE_CLUSTER = {"HOME", "POD_NAME", "POD_NAMESPACE"}
OF_LIBRARIES = {
    # Python's ssl, requests (which sends OTLP by HTTP) and gRPC.
    *("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"),
}


def variables(name: str, kind: str = "Deployment") -> dict[str, Any]:
    """Of the first container of the server's pods, or of another kind's."""
    release = "models" if name == "everything" else "understudy"
    pod = pod_of(named(manifests_of(name), kind, release))
    assert pod is not None
    return {one["name"]: one for one in pod["spec"]["containers"][0]["env"]}


@pytest.mark.parametrize("name", VALUES)
def test_every_variable_is_read_by_somebody(name: str):
    """OTEL_* are in docs/observability.md, UNDERSTUDY_* are settings, the others are known."""
    documented = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    own = {*values_of(name).get("secretEnv", {}), "HTTPS_PROXY"}
    for variable in set(variables(name)) - own - OF_THE_CLUSTER - OF_LIBRARIES:
        if variable.startswith("OTEL_"):
            assert f"`{variable}`" in documented, variable
        elif variable != "UNDERSTUDY_CONFIG":
            assert variable == "UNDERSTUDY_DATA_DIR"
            settings = load_settings(None, {variable: variables(name)[variable]["value"]})
            assert settings.data_dir == "/var/lib/understudy"


@pytest.mark.parametrize("name", VALUES)
def test_a_secret_comes_by_reference_only(name: str):
    """No variable whose name says secret has a value in the manifest."""
    for variable, entry in variables(name).items():
        if any(word in variable for word in ("PASSWORD", "TOKEN", "SECRET", "HEADERS")):
            assert "secretKeyRef" in entry["valueFrom"], variable


@pytest.mark.parametrize("name", VALUES)
def test_variables_that_are_built_of_others_come_after_them(name: str):
    """Kubernetes puts $(NAME) in only where NAME stands before."""
    names = list(variables(name))
    assert names.index("POD_NAME") < names.index("OTEL_RESOURCE_ATTRIBUTES")
    assert names.index("POD_NAMESPACE") < names.index("OTEL_RESOURCE_ATTRIBUTES")


def test_no_service_gives_variables_of_its_own():
    """Kubernetes would set UNDERSTUDY_PORT and more for a Service of that name."""
    for name in VALUES:
        for manifest in manifests_of(name):
            pod = pod_of(manifest)
            assert pod is None or pod["spec"]["enableServiceLinks"] is False


def test_telemetry_is_off_until_there_is_somewhere_to_send_it():
    """Without an endpoint no exporter is named, and the resource is there all the same."""
    found = variables("minimal")
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" not in found
    assert "k8s.pod.name=$(POD_NAME)" in found["OTEL_RESOURCE_ATTRIBUTES"]["value"]


def test_a_bundle_that_is_no_default_changes_nothing_else():
    """It is mounted for the `ca_file` settings, and the image's own list stays in use."""
    change = {"trustedCA": {"existingConfigMap": "bundle", "key": "ca.pem", "asDefault": False}}
    manifests: list[Manifest] = render(changed(values_of("minimal"), change))
    spec = named(manifests, "Deployment", "understudy")["spec"]["template"]["spec"]
    assert "SSL_CERT_FILE" not in {one["name"] for one in spec["containers"][0]["env"]}
    [volume] = [one for one in spec["volumes"] if one["name"] == "trusted-ca"]
    assert volume["configMap"] == {
        "name": "bundle",
        "items": [{"key": "ca.pem", "path": "ca-bundle.crt"}],
    }
