"""Every pod of the chart is one that OpenShift's restricted-v2 and the restricted Pod Security
Standard let in, and whoever breaks into it finds little."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.chart import VALUES, Manifest, manifests_of, pod_of, render, values_of

MATRIX = pytest.mark.parametrize("name", VALUES)

RESTRICTED_VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral"),
    *("persistentVolumeClaim", "projected", "secret"),
}


def pods(name: str) -> list[tuple[str, Manifest]]:
    """The specs of all pods, and whose they are."""
    return [
        (f"{one['kind']} {one['metadata']['name']}", pod["spec"])
        for one in manifests_of(name)
        if (pod := pod_of(one)) is not None
    ]


def violations(pod: Manifest) -> list[str]:
    """What the restricted Pod Security Standard, and restricted-v2 beyond it, object to."""
    found = [key for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key)]
    outer: dict[str, Any] = pod.get("securityContext") or {}
    if outer.get("sysctls"):
        found.append("sysctls")
    # restricted-v2 gives ids out of the namespace's range, and refuses others.
    found += [
        key
        for key in ("runAsUser", "runAsGroup", "fsGroup", "seLinuxOptions", "supplementalGroups")
        if key in outer
    ]
    for volume in pod.get("volumes", []):
        found += [f"volume {kind}" for kind in set(volume) - {"name"} - RESTRICTED_VOLUMES]
    for container in [*pod.get("containers", []), *pod.get("initContainers", [])]:
        inner: dict[str, Any] = container.get("securityContext") or {}
        if inner.get("privileged"):
            found.append("privileged")
        if inner.get("allowPrivilegeEscalation") is not False:
            found.append("allowPrivilegeEscalation")
        if inner.get("capabilities", {}).get("drop") != ["ALL"]:
            found.append("capabilities.drop")
        if set(inner.get("capabilities", {}).get("add", [])) - {"NET_BIND_SERVICE"}:
            found.append("capabilities.add")
        if inner.get("runAsNonRoot", outer.get("runAsNonRoot")) is not True:
            found.append("runAsNonRoot")
        if "runAsUser" in inner:
            found.append("runAsUser")
        if inner.get("procMount", "Default") != "Default":
            found.append("procMount")
        profile = inner.get("seccompProfile") or outer.get("seccompProfile") or {}
        if profile.get("type") not in {"RuntimeDefault", "Localhost"}:
            found.append("seccompProfile")
        found += [f"hostPort {port}" for port in container.get("ports", []) if "hostPort" in port]
    return found


@MATRIX
def test_restricted_lets_every_pod_in(name: str):
    """Servers, workers, migrations and tests keep to the standard."""
    assert pods(name)
    for whose, pod in pods(name):
        assert violations(pod) == [], whose


@pytest.mark.parametrize(
    ("change", "objection"),
    [
        ({"securityContext": {"allowPrivilegeEscalation": True}}, "allowPrivilegeEscalation"),
        ({"podSecurityContext": {"fsGroup": 1001}}, "fsGroup"),
        ({"podSecurityContext": {"seccompProfile": None}}, "seccompProfile"),
        ({"extraVolumes": [{"name": "host", "hostPath": {"path": "/"}}]}, "volume hostPath"),
    ],
)
def test_the_standard_is_really_looked_at(change: dict[str, Any], objection: str):
    """Values that break it are noticed by the check above."""
    values = {**values_of("minimal"), **change}
    specs = [pod["spec"] for one in render(values) if (pod := pod_of(one)) is not None]
    assert any(objection in violations(spec) for spec in specs)


@MATRIX
def test_no_file_can_be_written_but_in_two_places(name: str):
    """The root is read-only; the data folder and /tmp are volumes, each with a bound."""
    for whose, pod in pods(name):
        for container in pod["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, whose
            writable = {
                mount["mountPath"]
                for mount in container.get("volumeMounts", [])
                if not mount.get("readOnly")
            }
            assert writable <= {"/var/lib/understudy", "/tmp"}, whose
        for volume in pod.get("volumes", []):
            if "emptyDir" in volume:
                assert volume["emptyDir"].get("sizeLimit"), whose


@MATRIX
def test_every_container_has_bounds(name: str):
    """Requests for CPU and memory, a limit for memory, and probes where it serves."""
    for whose, pod in pods(name):
        for container in pod["containers"]:
            resources = container["resources"]
            assert {"cpu", "memory"} <= set(resources["requests"]), whose
            assert "memory" in resources["limits"], whose
            if whose.startswith("Deployment"):
                assert {"livenessProbe", "readinessProbe", "startupProbe"} <= set(container)


@MATRIX
def test_images_are_named_to_the_version(name: str):
    """No `latest`, and no tag left out."""
    for whose, pod in pods(name):
        for container in pod["containers"]:
            image = container["image"]
            assert "@sha256:" in image or ":" in image.rpartition("/")[2], whose
            assert not image.endswith(":latest"), whose


@MATRIX
def test_no_account_token_lies_about(name: str):
    """The account's own is never mounted; one that expires is, where it is needed."""
    for whose, pod in pods(name):
        assert pod["automountServiceAccountToken"] is False, whose
        for volume in pod.get("volumes", []):
            for source in volume.get("projected", {}).get("sources", []):
                if "serviceAccountToken" in source:
                    assert source["serviceAccountToken"]["expirationSeconds"] <= 7200, whose


@MATRIX
def test_nobody_may_do_everything(name: str):
    """No rule has a wildcard, and none can read Secrets or make anything."""
    for manifest in manifests_of(name):
        if manifest["kind"] not in {"Role", "ClusterRole"}:
            continue
        for rule in manifest["rules"]:
            assert "*" not in {*rule["verbs"], *rule["resources"], *rule["apiGroups"]}
            assert set(rule["verbs"]) <= {"get", "list", "watch"}
            assert "secrets" not in rule["resources"]


@MATRIX
def test_no_secret_is_made(name: str):
    """Secrets are yours: the chart names them, and has none of their values."""
    assert not [one for one in manifests_of(name) if one["kind"] == "Secret"]
