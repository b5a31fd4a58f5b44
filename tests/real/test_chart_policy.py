"""checkov, which platforms ask charts about, finds nothing but what is meant.

In an environment of its own, since it pins much. tests/chart/test_pod_security.py holds the chart
to the restricted Pod Security Standard without it.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.real.clients.environments import Client
from tests.support.chart import VALUES, render_files, values_of

CHECKOV = Client("checkov", script="", requirements=("checkov>=3.2,<4",))

MEANT = {
    "CKV_K8S_8": "probes: of the test's pod, which ends",
    "CKV_K8S_9": "the same",
    "CKV_K8S_11": "no limit for CPU: throttling makes streams stutter",
    "CKV_K8S_15": "when to pull is the installer's choice",
    "CKV_K8S_35": "${NAME} in the settings reads the environment",
    "CKV_K8S_40": "no user id: OpenShift gives one, and refuses others",
    "CKV_K8S_43": "a digest is the installer's to give",
}
"""What it objects to, and why that stays; docs/kubernetes.md says the same."""

IN_TEST_VALUES = {"ConfigMap.default.plain", "ConfigMap.default.models-extra"}
"""Objects of the test's own values, which have no namespace."""


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Every check that failed on any manifest of the matrix."""
    CHECKOV.build()
    folder: Path = tmp_path_factory.mktemp("manifests")
    for name in VALUES:
        rendered = render_files(values_of(name)).items()
        text = "\n---\n".join(text for template, text in rendered if template != "NOTES.txt")
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    done = subprocess.run(
        [
            *(CHECKOV.python.with_name("checkov"), "--directory", folder, "--output", "json"),
            *("--framework", "kubernetes", "--quiet", "--compact", "--skip-download"),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "LOG_LEVEL": "ERROR"},
        check=False,
    )
    report = json.loads(done.stdout)
    assert report["summary"]["passed"] > 1000
    assert report["summary"]["parsing_errors"] == 0
    found: list[dict[str, Any]] = report["results"]["failed_checks"]
    return found


@pytest.mark.timeout(900)
def test_checkov_objects_to_nothing_else(failures: list[dict[str, Any]]):
    """Each check that fails is one that is meant to."""
    unexpected = [
        f"{one['check_id']} {one['check_name']}: {one['resource']}"
        for one in failures
        if one["check_id"] not in MEANT and one["resource"] not in IN_TEST_VALUES
    ]
    assert unexpected == []


@pytest.mark.timeout(900)
def test_what_is_meant_is_documented(failures: list[dict[str, Any]]):
    """docs/kubernetes.md names each exception, and there is none that is needed no more."""
    text = (Path(__file__).parents[2] / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    assert {one for one in MEANT if one not in text} == set()
    assert set(MEANT) == {
        one["check_id"] for one in failures if one["resource"] not in IN_TEST_VALUES
    }
