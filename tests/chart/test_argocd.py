"""The Argo CD example is one that Argo CD takes, and leads to the chart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import yaml

from tests.chart.schemas import CUSTOM_KINDS
from tests.support.chart import CHART, ROOT, VALUES, manifests_of

FILE = ROOT / "deploy" / "argocd" / "application.yaml"


def documents() -> dict[str, dict[str, Any]]:
    loaded = yaml.safe_load_all(FILE.read_text(encoding="utf-8"))
    return {document["kind"]: document for document in loaded}


def test_it_is_valid():
    """Project and application are in keeping with their schemas."""
    for document in documents().values():
        jsonschema.validate(document, CUSTOM_KINDS[document["apiVersion"], document["kind"]])


def test_it_leads_to_the_chart_and_its_values():
    """Its path is the chart's, and its file of values is the one that is tested."""
    source = documents()["Application"]["spec"]["source"]
    assert ROOT / source["path"] == CHART
    [values] = source["helm"]["valueFiles"]
    assert Path(ROOT / source["path"] / values).resolve() == VALUES["rhoai"]


def test_the_project_allows_what_the_chart_makes():
    """Every namespace that the example's objects are in is a destination of the project."""
    documents_by_kind = documents()
    project = documents_by_kind["AppProject"]["spec"]
    application = documents_by_kind["Application"]
    assert application["spec"]["project"] == documents_by_kind["AppProject"]["metadata"]["name"]
    assert application["spec"]["source"]["repoURL"] in project["sourceRepos"]
    allowed = {one["namespace"] for one in project["destinations"]}
    release = application["spec"]["destination"]["namespace"]
    rendered = {one["metadata"].get("namespace", release) for one in manifests_of("rhoai")}
    assert {release if one == "ai" else one for one in rendered} <= allowed


def test_what_it_ignores_is_there():
    """The objects whose differences don't count have the names that the chart gives."""
    made = {(one["kind"], one["metadata"]["name"]) for one in manifests_of("rhoai")}
    for ignored in documents()["Application"]["spec"]["ignoreDifferences"]:
        if "name" in ignored:
            assert (ignored["kind"], ignored["name"]) in made
