"""What the chart renders to, over the matrix of values, is what a cluster takes."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from gateway.configuration import load_settings
from gateway.settings import Settings
from tests.chart.schemas import CUSTOM_KINDS
from tests.support import chart
from tests.support.chart import (
    NAMESPACE,
    VALUES,
    Manifest,
    changed,
    manifests_of,
    named,
    pod_of,
    render,
    render_files,
    settings_file,
    values_of,
)

KUBERNETES = ["1.27", "1.29", "1.34"]
"""The oldest that the chart is for, that of OpenShift 4.16, and a new one."""

_read = cache(kubernetes_validate.utils.schema_contents)

MATRIX = pytest.mark.parametrize("name", VALUES)


@pytest.fixture(autouse=True)
def _schemas_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """kubernetes-validate reads two megabytes for each manifest otherwise."""
    monkeypatch.setattr(kubernetes_validate.utils, "schema_contents", _read)


def check(manifest: Manifest, kubernetes: str) -> None:
    """Raises `jsonschema.ValidationError` for what the API server would refuse."""
    custom = CUSTOM_KINDS.get((manifest["apiVersion"], manifest["kind"]))
    if custom is not None:
        jsonschema.validate(manifest, custom)
        return
    kubernetes_validate.validate(manifest, kubernetes, strict=True)


@pytest.mark.parametrize("kubernetes", KUBERNETES)
@MATRIX
def test_every_manifest_is_valid(name: str, kubernetes: str):
    """Each is in keeping with its kind's schema, to the last field."""
    for manifest in manifests_of(name):
        check(manifest, kubernetes)


def test_the_schemas_find_a_misspelt_field():
    """The check above does refuse what is wrong, for Kubernetes' kinds and for others."""
    for kind, name in (("Deployment", "models"), ("ServiceMonitor", "models")):
        manifest = named(manifests_of("everything"), kind, name)
        wrong = changed(manifest, {"spec": {"selektor": {}}})
        with pytest.raises(jsonschema.ValidationError, match="selektor"):
            check(wrong, "1.29")


def test_everything_that_can_be_made_is_made():
    """The matrix has every kind of the chart, so that none goes unchecked."""
    kinds = {manifest["kind"] for name in VALUES for manifest in manifests_of(name)}
    source = "\n".join(file.read_text() for file in (chart.CHART / "templates").rglob("*.yaml"))
    assert kinds == set(re.findall(r"^kind: (\w+)$", source, re.MULTILINE))


@MATRIX
def test_lint_finds_nothing(name: str):
    """`helm lint --strict` is content."""
    assert chart.lint(values_of(name)) == []


@MATRIX
def test_no_two_objects_have_one_name(name: str):
    """A kind and a name within a namespace are one object."""
    keys = [
        (one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"])
        for one in manifests_of(name)
    ]
    assert len(keys) == len(set(keys))


@MATRIX
def test_no_line_ends_in_blanks(name: str):
    """What is rendered can be read and compared."""
    for template, text in render_files(values_of(name)).items():
        assert not re.search(r"[^\n][ \t]+$", text, re.MULTILINE), template


@MATRIX
def test_whatever_selects_pods_finds_them(name: str):
    """Selectors of Services, budgets, monitors and policies match the labels of pods."""
    manifests = manifests_of(name)
    pods = [pod["metadata"].get("labels", {}) for one in manifests if (pod := pod_of(one))]
    services = [one["metadata"]["labels"] for one in manifests if one["kind"] == "Service"]
    for manifest in manifests:
        match manifest["kind"]:
            case "Service":
                selector, among = manifest["spec"]["selector"], pods
            case "PodDisruptionBudget" | "PeerAuthentication" | "PodMonitor":
                selector, among = manifest["spec"]["selector"]["matchLabels"], pods
            case "NetworkPolicy":
                selector, among = manifest["spec"]["podSelector"]["matchLabels"], pods
            case "ServiceMonitor":
                selector, among = manifest["spec"]["selector"]["matchLabels"], services
            case "Deployment":
                selector = manifest["spec"]["selector"]["matchLabels"]
                among = [manifest["spec"]["template"]["metadata"]["labels"]]
            case _:
                continue
        assert any(selector.items() <= labels.items() for labels in among), manifest


@MATRIX
def test_one_service_leads_to_one_kind_of_pod(name: str):
    """Neither workers nor migrations get requests."""
    for service in (one for one in manifests_of(name) if one["kind"] == "Service"):
        assert service["spec"]["selector"]["app.kubernetes.io/component"] == "server"


@MATRIX
def test_every_volume_is_there(name: str):
    """What is mounted is a volume, and a ConfigMap, claim or account of the chart's is made."""
    manifests = manifests_of(name)
    made = {(one["kind"], one["metadata"]["name"]) for one in manifests}
    for manifest in manifests:
        pod = pod_of(manifest)
        if pod is None:
            continue
        volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", [])}
        for container in pod["spec"]["containers"]:
            assert {one["name"] for one in container.get("volumeMounts", [])} <= set(volumes)
        own = {"models", "understudy"}
        for volume in volumes.values():
            config_map = volume.get("configMap", {}).get("name", "")
            if config_map.split("-")[0] in own:
                assert ("ConfigMap", config_map) in made
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            if claim in own:
                assert ("PersistentVolumeClaim", claim) in made


@MATRIX
def test_ports_have_the_names_that_they_are_called_by(name: str):
    """Probes and Services name ports that the container has, of at most 15 characters."""
    manifests = manifests_of(name)
    for deployment in (one for one in manifests if one["kind"] == "Deployment"):
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        ports = {port["name"] for port in container["ports"]}
        assert all(len(port) <= 15 for port in ports)
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert container[probe]["httpGet"]["port"] in ports
    for service in (one for one in manifests if one["kind"] == "Service"):
        [port] = service["spec"]["ports"]
        assert port["targetPort"] in {"http", "http-management"}


def test_a_long_release_name_makes_names_that_a_cluster_takes():
    """No object's name is longer than 63 characters."""
    values = changed(values_of("everything"), {"fullnameOverride": "a" * 60})
    for manifest in render(values):
        assert len(manifest["metadata"]["name"]) <= 63


# ---------------------------------------------------------------------------------- the settings


def settings_in(text: str, folder: Path) -> Settings:
    """The settings of a rendered file, with its files in a folder and its variables set."""
    for name in set(re.findall(r"/(?:etc/understudy|var/run/secrets)/[\w./-]+", text)):
        file = folder / name.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        text = text.replace(name, str(file))
    # Sections that the gateway is to have, checked as soon as it has them.
    coming = {"identity", "kserve"} - set(Settings.__struct_fields__)
    sections = {key: value for key, value in yaml.safe_load(text).items() if key not in coming}
    if sections.get("identity", {}).get("mode") == "kubernetes":
        # The defaults are files of the account, which each of the pods has (see below).
        (folder / "account").touch()
        account = dict.fromkeys(["token_file", "ca_file"], str(folder / "account"))
        sections["identity"] = {"mode": "kubernetes", "kubernetes": account}
    config = folder / "understudy.yaml"
    config.write_text(yaml.safe_dump(sections), encoding="utf-8")
    variables = dict.fromkeys(re.findall(r"\$\{(\w+)\}", text), "a-secret")
    return load_settings(config, variables)


@MATRIX
def test_the_gateway_takes_the_settings_file(name: str, tmp_path: Path):
    """Each rendered ConfigMap loads as the gateway loads it, large numbers and all."""
    for manifest in manifests_of(name):
        text = (manifest.get("data") or {}).get("understudy.yaml")
        if manifest["kind"] == "ConfigMap" and text is not None:
            settings = settings_in(text, tmp_path)
            assert settings.server.host == "0.0.0.0"
            assert settings.server.management_port == 9090


def test_numbers_stay_whole(tmp_path: Path):
    """Helm has numbers as floating point, and the gateway gets them as they were."""
    text = settings_file(manifests_of("production"), "understudy")
    assert settings_in(text, tmp_path).limits.max_upload_bytes == 8589934592


def test_workers_take_the_work_from_servers():
    """With workers the servers leave files to them, unless the settings say otherwise."""
    text = settings_file(manifests_of("production"), "understudy")
    assert yaml.safe_load(text)["ingestion"] == {"embedded_worker": False}
    change = {"config": {"ingestion": {"embedded_worker": True}}}
    both = render(changed(values_of("production"), change))
    assert yaml.safe_load(settings_file(both, "understudy"))["ingestion"] == {
        "embedded_worker": True
    }


def test_the_migration_has_the_settings_of_the_release():
    """Its ConfigMap, made before the release's, says the same."""
    manifests = manifests_of("production")
    own, later = (settings_file(manifests, f"understudy{end}") for end in ("-migration", ""))
    assert own == later


def test_changed_settings_replace_the_pods():
    """The pods carry a checksum of the settings, unless that is turned off."""

    def checksum(change: Manifest) -> str | None:
        manifests = render(changed(values_of("production"), change))
        deployment = named(manifests, "Deployment", "understudy")
        annotations = deployment["spec"]["template"]["metadata"].get("annotations", {})
        found: str | None = annotations.get("checksum/config")
        return found

    first = checksum({})
    assert first == checksum({"replicaCount": 5})
    assert first != checksum({"config": {"embedding": {"batch_size": 7}}})
    assert checksum({"restartOnConfigChange": False}) is None


# ----------------------------------------------------------------------------------- the promises


def test_embedded_storage_is_one_pod_with_a_claim():
    """SQLite never meets a second pod, in an update neither, and its claim outlives a release."""
    manifests = manifests_of("minimal")
    spec = named(manifests, "Deployment", "understudy")["spec"]
    assert spec["replicas"] == 1
    assert spec["strategy"] == {"type": "Recreate"}
    claim = named(manifests, "PersistentVolumeClaim", "understudy")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_shared_storage_needs_no_claim_and_rolls():
    """Nothing in a pod has to outlast it, and none goes before another has come."""
    manifests = manifests_of("production")
    assert not [one for one in manifests if one["kind"] == "PersistentVolumeClaim"]
    spec = named(manifests, "Deployment", "understudy")["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


@pytest.mark.parametrize("drain", [0, 7.5])
@pytest.mark.parametrize("grace", [1, 60, 600])
def test_streams_may_end_before_the_pod_does(grace: int, drain: float):
    """The pod's grace is longer than preStop and the server's own times together."""
    server = {"shutdown_grace_seconds": grace, "drain_seconds": drain}
    values = changed(values_of("minimal"), {"config": {"server": server}})
    spec = named(render(values), "Deployment", "understudy")["spec"]["template"]["spec"]
    [container] = spec["containers"]
    sleep = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert spec["terminationGracePeriodSeconds"] > sleep + drain + grace


def test_probes_follow_the_port():
    """With a management port they are there, and without one on the API's."""
    values = changed(values_of("minimal"), {"config": {"server": {"management_port": None}}})
    manifests = render(values)
    [container] = named(manifests, "Deployment", "understudy")["spec"]["template"]["spec"][
        "containers"
    ]
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert [one["metadata"]["name"] for one in manifests if one["kind"] == "Service"] == [
        "understudy"
    ]


def test_the_autoscaler_alone_says_how_many():
    """With it the Deployment has no number, which would undo its own."""
    manifests = manifests_of("everything")
    assert "replicas" not in named(manifests, "Deployment", "models")["spec"]
    assert named(manifests, "HorizontalPodAutoscaler", "models")["spec"]["minReplicas"] == 3


@pytest.mark.parametrize("helm", [True, False])
@pytest.mark.parametrize("argocd", [True, False])
def test_migrations_are_hooks_of_helm_and_argo_cd(*, helm: bool, argocd: bool):
    """Job, settings and bundles come first by either's rules, or are part of the release."""
    values = changed(
        values_of("everything"), {"migrationJob": {"hooks": {"helm": helm, "argocd": argocd}}}
    )
    manifests = render(values)
    [job] = [one for one in manifests if one["kind"] == "Job"]
    names = [
        volume["configMap"]["name"]
        for volume in job["spec"]["template"]["spec"]["volumes"]
        if "configMap" in volume
    ]
    assert len(names) == 3
    needed = [named(manifests, "ConfigMap", name) for name in names]
    for manifest in [job, *needed]:
        annotations = manifest["metadata"].get("annotations", {})
        hooked = manifest is job or helm or argocd
        assert (annotations.get("helm.sh/hook") == "pre-install,pre-upgrade") == (helm and hooked)
        assert (annotations.get("argocd.argoproj.io/hook") == "PreSync") == (argocd and hooked)
    if helm or argocd:
        weights = {
            int(
                annotations.get("helm.sh/hook-weight")
                or annotations["argocd.argoproj.io/sync-wave"]
            )
            for manifest in needed
            if (annotations := manifest["metadata"]["annotations"])
        }
        assert weights == {-5}
    else:
        assert job["metadata"]["name"] == "models-migration-1"


def test_migrations_need_no_account_of_the_release():
    """A hook before an installation can't use an account that the installation makes."""
    [job] = [one for one in manifests_of("production") if one["kind"] == "Job"]
    assert job["spec"]["template"]["spec"]["serviceAccountName"] == "default"


def test_a_migration_in_the_mesh_ends():
    """It has no sidecar, or tells it to end and keeps the migration's own status."""
    [job] = [one for one in manifests_of("everything") if one["kind"] == "Job"]
    template = job["spec"]["template"]
    assert template["metadata"]["labels"]["sidecar.istio.io/inject"] == "true"
    script = template["spec"]["containers"][0]["command"][2]
    assert "quitquitquit" in script
    assert script.rstrip().endswith("exit $status")
    plain = render(changed(values_of("everything"), {"migrationJob": {"meshSidecar": False}}))
    [job] = [one for one in plain if one["kind"] == "Job"]
    assert job["spec"]["template"]["metadata"]["labels"]["sidecar.istio.io/inject"] == "false"
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == ["db", "upgrade"]


def test_kserve_may_be_read_where_it_is_looked_for():
    """A Role and a binding in each namespace, for three verbs on one kind."""
    manifests = manifests_of("everything")
    roles = [one for one in manifests if one["kind"] == "Role"]
    assert {one["metadata"]["namespace"] for one in roles} == {"models", "more-models"}
    for role in roles:
        assert role["rules"] == [
            {
                "apiGroups": ["serving.kserve.io"],
                "resources": ["inferenceservices"],
                "verbs": ["get", "list", "watch"],
            }
        ]
    for binding in (one for one in manifests if one["kind"] == "RoleBinding"):
        assert binding["subjects"] == [
            {"kind": "ServiceAccount", "name": "models", "namespace": NAMESPACE}
        ]


def test_no_permission_is_given_that_nobody_needs():
    """Without KServe and TokenReview there is no role, no binding and no token."""
    manifests = manifests_of("production")
    assert not [one for one in manifests if "Role" in one["kind"]]
    for manifest in manifests:
        pod = pod_of(manifest)
        if pod is not None:
            assert pod["spec"]["automountServiceAccountToken"] is False
            assert not [one for one in pod["spec"].get("volumes", []) if "projected" in one]


def test_whoever_reads_the_settings_has_the_files_of_the_account():
    """Servers, workers and migrations check that the token and the API server's CA are there."""
    for manifest in manifests_of("everything"):
        pod = pod_of(manifest)
        if pod is None or manifest["kind"] == "Pod":
            continue
        [volume] = [one for one in pod["spec"]["volumes"] if one["name"] == "service-account"]
        text = json.dumps(volume["projected"]["sources"])
        for file in ("token", "ca.crt", "service-ca.crt", "namespace"):
            assert f'"path": "{file}"' in text
        [mount] = [
            one
            for one in pod["spec"]["containers"][0]["volumeMounts"]
            if one["name"] == "service-account"
        ]
        assert mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"


def test_the_network_policy_knows_the_namespaces_of_the_settings():
    """What the settings name as NAME.NAMESPACE.svc may be reached, and other namespaces not."""
    policy = named(manifests_of("everything"), "NetworkPolicy", "models")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    namespaces = {
        peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
        for rule in policy["egress"]
        for peer in rule.get("to", [])
        if peer.get("namespaceSelector", {}).get("matchLabels")
    }
    assert namespaces == {"models", "more-models", "observability", "storage", "tools"}
    for rule in policy["ingress"]:
        assert rule["from"], "an empty list of callers would be everybody"


def test_the_router_of_a_route_gets_through():
    """A Route brings its own permission, and OpenShift's routers are nobody else's business."""
    values = changed(values_of("production"), {"ingress": {"enabled": False}})
    router = {"network.openshift.io/policy-group": "ingress"}

    def callers(values: Manifest) -> str:
        return json.dumps(named(render(values), "NetworkPolicy", "understudy")["spec"]["ingress"])

    on_the_host = {"policy-group.network.openshift.io/host-network": ""}
    with_route = callers(changed(values, {"route": {"enabled": True}}))
    for one in (router, on_the_host):
        assert json.dumps(one) not in callers(values)
        assert json.dumps(one) in with_route


def test_the_router_may_read_the_certificate_that_it_is_given():
    """That Secret, and no other."""
    values = changed(
        values_of("minimal"), {"route": {"enabled": True, "existingSecret": "models-tls"}}
    )
    manifests = render(values)
    role = named(manifests, "Role", "understudy-router")
    assert role["rules"] == [
        {
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": ["models-tls"],
            "verbs": ["get", "list", "watch"],
        }
    ]
    binding = named(manifests, "RoleBinding", "understudy-router")
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert [one["namespace"] for one in binding["subjects"]] == ["openshift-ingress"]


def test_a_sidecar_outlives_the_requests_of_a_pod_that_ends():
    """Its own default is five seconds from the pod's deletion."""
    values = changed(
        values_of("minimal"),
        {
            "mesh": {"enabled": True, "peerAuthentication": {"mode": "PERMISSIVE"}},
            "preStopSleepSeconds": 5,
            "config": {"server": {"drain_seconds": 10, "shutdown_grace_seconds": 120}},
        },
    )
    pod = named(render(values), "Deployment", "understudy")["spec"]["template"]
    sidecar = json.loads(pod["metadata"]["annotations"]["proxy.istio.io/config"])
    assert sidecar["terminationDrainDuration"] == "135s"
    assert sidecar["proxyMetadata"] == {
        "EXIT_ON_ZERO_ACTIVE_CONNECTIONS": "true",
        "MINIMUM_DRAIN_DURATION": "15s",
    }
    assert pod["spec"]["terminationGracePeriodSeconds"] >= 135


def test_a_route_waits_as_long_as_the_gateway_does():
    """The router's limit is the whole call's, and plain HTTP gets nothing."""
    values = changed(
        values_of("minimal"), {"route": {"enabled": True}, "config": {"timeouts": {"total": 1800}}}
    )
    route = named(render(values), "Route", "understudy")
    assert route["metadata"]["annotations"]["haproxy.router.openshift.io/timeout"] == "1800s"
    assert route["spec"]["tls"]["insecureEdgeTerminationPolicy"] == "None"
    own = {"haproxy.router.openshift.io/timeout": "5m"}
    route = named(render(changed(values, {"route": {"annotations": own}})), "Route", "understudy")
    assert route["metadata"]["annotations"]["haproxy.router.openshift.io/timeout"] == "5m"


def test_a_trusted_bundle_is_used_by_every_library():
    """Python's ssl, requests and gRPC are pointed at it, in servers, workers and migrations."""
    for manifest in manifests_of("everything"):
        pod = pod_of(manifest)
        if pod is None or manifest["kind"] == "Pod":
            continue
        container = pod["spec"]["containers"][0]
        variables = {one["name"]: one.get("value") for one in container["env"]}
        for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"):
            assert variables[name] == "/etc/understudy/ca/ca-bundle.crt"
        assert "/etc/understudy/ca" in {one["mountPath"] for one in container["volumeMounts"]}


def test_the_notes_tell_how_to_go_on():
    """They have the command for the first key, and the address."""
    values = changed(values_of("minimal"), {"route": {"enabled": True, "host": "m.example.com"}})
    notes = render_files(values)["NOTES.txt"]
    assert "understudy keys create" in notes
    assert "https://m.example.com/v1" in notes
