"""JSON Schemas of the kinds that are not Kubernetes' own, for as much of them as the chart uses.

kubernetes-validate has none for them. They are strict: a field that is not listed here is an error,
so that a misspelt one is found, and a new one has to be looked up in the kind's documentation.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string", "minLength": 1}
NUMBER: Schema = {"type": "integer"}
MAP: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
DURATION: Schema = {"type": "string", "pattern": r"^([0-9]+(ms|s|m|h|d))+$"}


def _object(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


def _list(items: Schema, least: int = 1) -> Schema:
    return {"type": "array", "items": items, "minItems": least}


def _one_of(*values: str) -> Schema:
    return {"enum": list(values)}


def _manifest(spec: Schema) -> Schema:
    metadata = _object(
        {"name": {**TEXT, "maxLength": 63}},
        {"namespace": TEXT, "labels": MAP, "annotations": MAP, "finalizers": _list(TEXT)},
    )
    return _object({"apiVersion": TEXT, "kind": TEXT, "metadata": metadata, "spec": spec})


_SELECTOR = _object({"matchLabels": MAP})
_RELABELING = _object(
    {},
    {
        "action": _one_of(
            *("replace", "keep", "drop", "hashmod", "labelmap", "labeldrop", "labelkeep")
        ),
        "sourceLabels": _list(TEXT),
        "regex": TEXT,
        "targetLabel": TEXT,
        "replacement": TEXT,
        "separator": TEXT,
    },
)
_ENDPOINT = _object(
    {"port": TEXT, "path": TEXT, "interval": DURATION, "scrapeTimeout": DURATION},
    {
        "honorLabels": {"type": "boolean"},
        "relabelings": _list(_RELABELING),
        "metricRelabelings": _list(_RELABELING),
    },
)
_NAMESPACES = _object({"matchNames": _list(TEXT)})
_MTLS = _object({"mode": _one_of("STRICT", "PERMISSIVE", "DISABLE", "UNSET")})
_PATH = _object({"type": _one_of("Exact", "PathPrefix", "RegularExpression"), "value": TEXT})
_GATEWAY_DURATION: Schema = {"type": "string", "pattern": r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"}

CUSTOM_KINDS: dict[tuple[str, str], Schema] = {
    ("route.openshift.io/v1", "Route"): _manifest(
        _object(
            {
                "to": _object(
                    {"kind": _one_of("Service"), "name": TEXT},
                    {"weight": {"type": "integer", "minimum": 0, "maximum": 256}},
                ),
                "port": _object({"targetPort": TEXT}),
                "tls": _object(
                    {"termination": _one_of("edge", "reencrypt", "passthrough")},
                    {
                        "insecureEdgeTerminationPolicy": _one_of("None", "Allow", "Redirect"),
                        "externalCertificate": _object({"name": TEXT}),
                    },
                ),
            },
            {"host": TEXT, "wildcardPolicy": _one_of("None", "Subdomain")},
        )
    ),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): _manifest(
        _object(
            {
                "parentRefs": _list(
                    _object({"name": TEXT}, {"namespace": TEXT, "sectionName": TEXT, "kind": TEXT})
                ),
                "rules": _list(
                    _object(
                        {"backendRefs": _list(_object({"name": TEXT, "port": NUMBER}))},
                        {
                            "matches": _list(_object({"path": _PATH})),
                            "filters": _list({"type": "object", "required": ["type"]}),
                            "timeouts": _object(
                                {},
                                {"request": _GATEWAY_DURATION, "backendRequest": _GATEWAY_DURATION},
                            ),
                        },
                    )
                ),
            },
            {"hostnames": _list(TEXT)},
        )
    ),
    ("monitoring.coreos.com/v1", "ServiceMonitor"): _manifest(
        _object(
            {
                "selector": _SELECTOR,
                "endpoints": _list(_ENDPOINT),
                "namespaceSelector": _NAMESPACES,
            }
        )
    ),
    ("monitoring.coreos.com/v1", "PodMonitor"): _manifest(
        _object(
            {
                "selector": _SELECTOR,
                "podMetricsEndpoints": _list(_ENDPOINT),
                "namespaceSelector": _NAMESPACES,
            }
        )
    ),
    ("monitoring.coreos.com/v1", "PrometheusRule"): _manifest(
        _object(
            {
                "groups": _list(
                    _object(
                        {
                            "name": TEXT,
                            "rules": _list(
                                _object(
                                    {"alert": TEXT, "expr": TEXT},
                                    {"for": DURATION, "labels": MAP, "annotations": MAP},
                                )
                            ),
                        }
                    )
                )
            }
        )
    ),
    ("security.istio.io/v1beta1", "PeerAuthentication"): _manifest(
        _object(
            {"selector": _SELECTOR, "mtls": _MTLS},
            {
                "portLevelMtls": {
                    "type": "object",
                    "propertyNames": {"pattern": "^[0-9]+$"},
                    "additionalProperties": _MTLS,
                }
            },
        )
    ),
    ("networking.istio.io/v1beta1", "DestinationRule"): _manifest(
        _object(
            {
                "host": TEXT,
                "trafficPolicy": _object(
                    {"tls": _object({"mode": _one_of("ISTIO_MUTUAL", "DISABLE")})},
                    {"loadBalancer": _object({"simple": _one_of("LEAST_REQUEST", "ROUND_ROBIN")})},
                ),
            }
        )
    ),
    ("argoproj.io/v1alpha1", "AppProject"): _manifest(
        _object(
            {
                "sourceRepos": _list(TEXT),
                "destinations": _list(_object({"namespace": TEXT, "server": TEXT})),
            },
            {
                "description": TEXT,
                "clusterResourceWhitelist": _list(_object({"group": TEXT, "kind": TEXT}), least=0),
            },
        )
    ),
    ("argoproj.io/v1alpha1", "Application"): _manifest(
        _object(
            {
                "project": TEXT,
                "source": _object(
                    {
                        "repoURL": TEXT,
                        "targetRevision": TEXT,
                        "path": TEXT,
                        "helm": _object(
                            {"valueFiles": _list(TEXT)},
                            {"releaseName": TEXT, "parameters": _list({"type": "object"})},
                        ),
                    }
                ),
                "destination": _object({"server": TEXT, "namespace": TEXT}),
            },
            {
                "syncPolicy": _object(
                    {},
                    {
                        "automated": _object(
                            {}, {"prune": {"type": "boolean"}, "selfHeal": {"type": "boolean"}}
                        ),
                        "syncOptions": _list(TEXT),
                        "retry": _object({"limit": NUMBER, "backoff": {"type": "object"}}),
                    },
                ),
                "ignoreDifferences": _list({"type": "object", "required": ["kind"]}),
                "revisionHistoryLimit": NUMBER,
            },
        )
    ),
}
"""By apiVersion and kind."""
