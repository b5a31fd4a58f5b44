"""What can't work or isn't safe is refused before it is installed, in words that say what to do."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.chart import Refused, changed, default_values, render, values_of

REFUSALS: dict[str, tuple[str, dict[str, Any], str]] = {
    "replicas on SQLite": (
        "production",
        {"config": {"database": {"url": None}}},
        "replicaCount 3: .*SQLite",
    ),
    "replicas on files on disk": (
        "production",
        {"config": {"objects": {"kind": "disk"}}},
        "replicaCount 3: .*files on disk",
    ),
    "replicas on Milvus Lite": (
        "production",
        {"config": {"vectors": {"uri": "./milvus"}}},
        "replicaCount 3: .*Milvus Lite",
    ),
    "replicas on SQLite by a variable": (
        "production",
        {"extraEnv": [{"name": "UNDERSTUDY_DATABASE__URL", "value": "sqlite+aiosqlite:///a.db"}]},
        "replicaCount 3: .*SQLite",
    ),
    "replicas on files on disk by a variable": (
        "production",
        {"extraEnv": [{"name": "UNDERSTUDY_OBJECTS__KIND", "value": "disk"}]},
        "replicaCount 3: .*files on disk",
    ),
    "replicas on Milvus Lite by a variable": (
        "production",
        {"extraEnv": [{"name": "UNDERSTUDY_VECTORS__URI", "value": "/tmp/milvus.db"}]},
        "replicaCount 3: .*Milvus Lite",
    ),
    "replicas on Milvus Lite in a folder": (
        "production",
        {
            "config": {"vectors": {"uri": "${DIR}/milvus.db"}},
            "extraEnv": [{"name": "DIR", "value": "/data"}],
        },
        "replicaCount 3: .*Milvus Lite",
    ),
    "replicas on Milvus Lite by an address": (
        "production",
        {"config": {"vectors": {"uri": "file:///data/milvus.db"}}},
        "replicaCount 3: .*Milvus Lite",
    ),
    "two pods for a while on what is embedded": (
        "minimal",
        {"strategy": {"type": "RollingUpdate"}},
        "strategy.type RollingUpdate",
    ),
    "replicas that each count limits": (
        "production",
        {"config": {"limits": {"store": "memory"}}},
        "replicaCount 3 with config.limits.store memory",
    ),
    "scaling what is embedded": ("minimal", {"autoscaling": {"enabled": True}}, "autoscaling"),
    "workers on what is embedded": ("minimal", {"worker": {"enabled": True}}, "worker.enabled"),
    "nobody to do the work": (
        "minimal",
        {"config": {"ingestion": {"embedded_worker": False}}},
        "worker.enabled: true",
    ),
    "no model server": ("minimal", {"config": {"discover": []}}, "config.discover"),
    "no identity": ("minimal", {"config": {"identity": {"mode": "none"}}}, "allow_anonymous"),
    "no identity in public": (
        "minimal",
        {
            "config": {"identity": {"mode": "none", "allow_anonymous": True}},
            "route": {"enabled": True},
        },
        "exposeWithoutIdentity",
    ),
    "a server that nobody reaches": (
        "minimal",
        {"config": {"server": {"host": "127.0.0.1"}}},
        "config.server.host",
    ),
    "two ports that are one": (
        "minimal",
        {"config": {"server": {"management_port": 8321}}},
        "management_port",
    ),
    "a grace that cuts off streams": (
        "minimal",
        {"terminationGracePeriodSeconds": 30},
        "terminationGracePeriodSeconds: .*65",
    ),
    "a data folder of one's own": ("minimal", {"config": {"data_dir": "/data"}}, "data_dir"),
    "a key in the values": (
        "minimal",
        {"config": {"models": [{"id": "a", "backends": [{"url": "http://a", "api_key": "sk-1"}]}]}},
        r"config\.models\[0\]\.backends\[0\]\.api_key",
    ),
    "a password in a URL": (
        "production",
        {"config": {"database": {"url": "postgresql+asyncpg://me:pa55@postgres/understudy"}}},
        "config.database.url: a password",
    ),
    "a secret that comes from nowhere": (
        "minimal",
        {"config": {"vectors": {"token": "${MILVUS_TOKEN}"}}},
        r"\$\{MILVUS_TOKEN\}",
    ),
    "two bundles": (
        "minimal",
        {"trustedCA": {"inject": True, "existingConfigMap": "bundle"}},
        "trustedCA",
    ),
    "bounds that cross": (
        "production",
        {"autoscaling": {"enabled": True, "minReplicas": 20}},
        "autoscaling.minReplicas",
    ),
    "scaling by nothing": (
        "production",
        {"autoscaling": {"enabled": True, "targetCPUUtilizationPercentage": None}},
        "autoscaling: give",
    ),
    "a route into a strict mesh": (
        "production",
        {"mesh": {"enabled": True}, "route": {"enabled": True}},
        "outside the mesh",
    ),
    "a route of no gateway": ("minimal", {"httpRoute": {"enabled": True}}, "httpRoute.parentRefs"),
    "no image": ("minimal", {"image": {"repository": ""}}, "Containerfile"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_it_is_refused_in_clear_words(case: str):
    """The message names the value."""
    base, change, message = REFUSALS[case]
    with pytest.raises(Refused, match=message):
        render(changed(values_of(base), change))


ALLOWED: dict[str, tuple[str, dict[str, Any]]] = {
    "a database from the environment": (
        "production",
        {
            "config": {"database": {"url": None}},
            "secretEnv": {"UNDERSTUDY_DATABASE__URL": {"existingSecret": "pg", "key": "url"}},
        },
    ),
    "a database in a variable": (
        "production",
        {
            "config": {"database": {"url": None}},
            "extraEnv": [
                {"name": "UNDERSTUDY_DATABASE__URL", "value": "postgresql+asyncpg://postgres/a"}
            ],
        },
    ),
    "a database that is a variable": (
        "production",
        {"config": {"database": {"url": "${DATABASE_URL}"}}},
    ),
    "no identity on purpose": (
        "minimal",
        {"config": {"identity": {"mode": "none", "allow_anonymous": True}}},
    ),
    "no identity in public on purpose": (
        "minimal",
        {
            "config": {"identity": {"mode": "none", "allow_anonymous": True}},
            "route": {"enabled": True},
            "exposeWithoutIdentity": True,
        },
    ),
    "a variable with a default": (
        "minimal",
        {"config": {"telemetry": {"service_name": "${SERVICE:-understudy}"}}},
    ),
    "a route into a permissive mesh": (
        "production",
        {
            "mesh": {"enabled": True, "peerAuthentication": {"mode": "PERMISSIVE"}},
            "route": {"enabled": True},
        },
    ),
    "nothing running": ("production", {"replicaCount": 0}),
}


@pytest.mark.parametrize("case", ALLOWED)
def test_what_can_work_is_not_refused(case: str):
    """The neighbours of the refusals above render."""
    base, change = ALLOWED[case]
    assert render(changed(values_of(base), change))


def test_the_defaults_alone_say_what_is_missing():
    """Nothing but the image and a model server has to be given."""
    with pytest.raises(Refused, match=r"image\.repository"):
        render({})
    with pytest.raises(Refused, match=r"config\.discover"):
        render({"image": {"repository": "registry.example.com/understudy"}})


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "a misspelt value": ({"replicas": 2}, "replicas"),
    "a misspelt value within": ({"route": {"enable": True}}, "enable"),
    "a word for a number": ({"replicaCount": "two"}, "replicaCount"),
    "a digest that is none": ({"image": {"digest": "latest"}}, "digest"),
    "a mode that there isn't": ({"config": {"identity": {"mode": "ldap"}}}, "mode"),
    "a secret without a key": ({"secretEnv": {"A": {"existingSecret": "a"}}}, "key"),
    "a secret value": ({"secretEnv": {"A": {"value": "a"}}}, "value"),
    "a name that is no name": ({"existingSecret": "My Secret"}, "existingSecret"),
    "a port that is none": ({"service": {"port": 0}}, "port"),
    "a namespace twice": ({"rbac": {"kserve": {"namespaces": ["a", "a"]}}}, "equal"),
    "termination of a route": ({"route": {"termination": "passthrough"}}, "termination"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_the_schema_refuses_mistakes(case: str):
    """values.schema.json names what is wrong."""
    change, message = MISTAKES[case]
    with pytest.raises(Refused, match=f"(?s)schema.*{message}"):
        render(changed(values_of("minimal"), change))


def test_every_default_can_be_overridden_by_null():
    """Helm takes null as "away with it": the chart then refuses or renders, and does not crash."""
    for key in default_values():
        try:
            render(changed(values_of("minimal"), {key: None}))
        except Refused as refusal:
            assert "nil pointer" not in str(refusal), key
