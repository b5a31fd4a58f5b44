"""The image is small in what it can do: pinned, for any user id, and in need of no network.

No container engine is at hand where these tests run: the Containerfile is read, by hadolint too,
and the gateway is run as a pod would run it.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gateway import __version__
from tests.support.chart import CHART, ROOT

CONTAINERFILE = ROOT / "Containerfile"
DEPLOY = ROOT / "deploy"
EXTRAS = ("docling", "grpc", "redis")
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

IMAGE = {
    **default_environment(),
    "python_version": "3.12",
    "python_full_version": "3.12.0",
    "platform_system": "Linux",
    "sys_platform": "linux",
    "platform_machine": "x86_64",
}
"""What markers are told about the image."""


def stages() -> list[list[tuple[str, str]]]:
    """The instructions of each stage; the first list is what stands before any stage."""
    text = re.sub(r"^\s*#.*\n", "", CONTAINERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found: list[list[tuple[str, str]]] = [[]]
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if not line.strip():
            continue
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            found.append([])
        found[-1].append((instruction, rest.strip()))
    return found


def instructions(stage: int, name: str) -> list[str]:
    return [rest for instruction, rest in stages()[stage] if instruction == name]


def pins(lock: str) -> dict[str, list[Requirement]]:
    """By name, what a lock pins; several where it depends on the Python."""
    text = (DEPLOY / lock).read_text(encoding="utf-8")
    found: dict[str, list[Requirement]] = {}
    for line in re.findall(r"^([^\s#-][^\\\n]*?) *\\?$", text, re.MULTILINE):
        requirement = Requirement(line)
        found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def pinned(lock: dict[str, list[Requirement]], name: str) -> str | None:
    """The version that the image gets of it."""
    for requirement in lock.get(canonicalize_name(name), []):
        if requirement.marker is None or requirement.marker.evaluate(IMAGE):
            [version] = [one.version for one in requirement.specifier]
            return version
    return None


def wanted() -> list[Requirement]:
    """What pyproject.toml asks for, with the extras of the image."""
    project = PYPROJECT["project"]
    lists = [project["dependencies"], *(project["optional-dependencies"][one] for one in EXTRAS)]
    return [Requirement(line) for lines in lists for line in lines]


# ------------------------------------------------------------------------------------ the recipe


def test_hadolint_finds_nothing():
    """The linter of Containerfiles is content."""
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, CONTAINERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_base_is_pinned():
    """Both stages are built on one release of one image, never on `latest`."""
    bases = [rest.split()[0] for stage in stages()[1:] for name, rest in stage if name == "FROM"]
    assert len(bases) == 2
    assert len(set(bases)) == 1
    assert bases[0].endswith(":${UBI}")
    [release] = [one for one in instructions(0, "ARG") if one.startswith("UBI=")]
    assert re.fullmatch(r"UBI=\d+\.\d+", release)


def test_it_runs_as_any_user():
    """A number that is not root's, with the data folder for the group 0, which every id has."""
    assert re.fullmatch(r"[1-9]\d*", instructions(2, "USER")[-1])
    [data] = [one for one in instructions(2, "COPY") if one.endswith("/var/lib/understudy")]
    assert "--chown=1001:0" in data
    assert "--chmod=0770" in data


def test_nothing_is_run_in_the_last_stage():
    """It is put together from files: nothing is downloaded there, and no tool for it is left."""
    assert instructions(2, "RUN") == []
    assert "pip uninstall --yes pip" in " ".join(instructions(1, "RUN"))


def test_installs_are_pinned_by_hash():
    """Each installation from an index asks for hashes and for wheels only."""
    for command in " && ".join(instructions(1, "RUN")).split(" && "):
        if "pip install" in command and "--no-index" not in command:
            assert "--require-hashes --no-deps --only-binary :all:" in command


def test_it_asks_no_model_hub():
    """What would look for models elsewhere is told not to."""
    variables = dict(one.split("=", 1) for text in instructions(2, "ENV") for one in text.split())
    assert variables["HF_HUB_OFFLINE"] == variables["TRANSFORMERS_OFFLINE"] == "1"
    assert variables["UNDERSTUDY_DATA_DIR"] == "/var/lib/understudy"


def test_it_starts_the_gateway():
    """The entry point is the command line, and process 1 gets SIGTERM itself."""
    assert instructions(2, "ENTRYPOINT") == ['["understudy"]']
    assert instructions(2, "CMD") == ['["serve", "--host", "0.0.0.0"]']
    assert "understudy" in PYPROJECT["project"]["scripts"]


def test_it_is_of_this_version():
    """Labels and the chart name the version of the gateway."""
    labels = " ".join(instructions(2, "LABEL"))
    assert f' version="{__version__}"' in labels
    assert f'org.opencontainers.image.version="{__version__}"' in labels
    assert f'appVersion: "{__version__}"' in (CHART / "Chart.yaml").read_text(encoding="utf-8")


def test_what_is_copied_is_there_and_nothing_else_is_sent():
    """Each source of COPY exists and passes .containerignore; tests and secrets don't."""
    lines = (ROOT / ".containerignore").read_text(encoding="utf-8").splitlines()
    let_through = {line[1:] for line in lines if line.startswith("!")}
    assert "*" in lines
    sources = {
        source
        for text in instructions(1, "COPY")
        for source in text.split()[:-1]
        if not source.startswith("--")
    }
    assert sources == let_through
    for source in sources:
        assert (ROOT / source).exists(), source


# -------------------------------------------------------------------------------------- the locks


@pytest.mark.parametrize("requirement", wanted(), ids=str)
def test_the_lock_has_what_pyproject_asks_for(requirement: Requirement):
    """A version is pinned that pyproject.toml allows; if not, `make lock`."""
    if requirement.marker is not None and not requirement.marker.evaluate(IMAGE):
        return
    version = pinned(pins("requirements.lock"), requirement.name)
    assert version, "run `make lock`"
    assert requirement.specifier.contains(version), "run `make lock`"


def test_the_build_lock_has_what_the_build_asks_for():
    """The same for what makes the wheel."""
    [line] = PYPROJECT["build-system"]["requires"]
    requirement = Requirement(line)
    version = pinned(pins("build.lock"), requirement.name)
    assert version
    assert requirement.specifier.contains(version)
    assert (DEPLOY / "build.in").read_text(encoding="utf-8").split()[0] == line


@pytest.mark.parametrize("lock", ["requirements.lock", "build.lock"])
def test_everything_in_a_lock_has_a_hash(lock: str):
    """Each pin is one version, with sha256 hashes, from an index and nowhere else."""
    text = (DEPLOY / lock).read_text(encoding="utf-8")
    entries = re.split(r"\n(?=[a-z0-9])", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    assert entries
    for entry in entries:
        assert re.match(r"[a-z0-9._-]+==[^\s;]+", entry), entry
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry
    assert not re.search(r"https?:|file:|-index-url|--find-links", text)


def test_the_lock_is_whole():
    """What a pinned package needs is pinned too, as far as the packages installed here can tell."""
    lock = pins("requirements.lock")
    looked_at = 0
    for name in lock:
        version = pinned(lock, name)
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if distribution.version != version:
            continue
        looked_at += 1
        for line in distribution.requires or []:
            needed = Requirement(line)
            if needed.marker is not None and not needed.marker.evaluate({**IMAGE, "extra": ""}):
                continue
            found = pinned(lock, needed.name)
            assert found, f"{name} needs {needed}"
            assert needed.specifier.contains(found, prereleases=True), f"{name} needs {needed}"
    assert looked_at > len(lock) / 2


# -------------------------------------------------------------------------------------- as in a pod


def namespaces_can_be_made() -> bool:
    """Whether this machine lets us make mounts and a network of our own."""
    if os.getuid() != 0 or not shutil.which("unshare") or not shutil.which("setpriv"):
        return False
    tried = ["unshare", "-m", "-n", "--propagation", "private", "mount", "-t", "tmpfs", "a", "/mnt"]
    return subprocess.run(tried, capture_output=True, check=False).returncode == 0


@pytest.mark.timeout(300)
def test_it_works_in_a_restricted_pod(tmp_path: Path):
    """With an unknown user id, no home, a read-only disk and no network, it converts, stores,
    searches and chats, ends in good order, and leaves nothing outside the data folder.

    Where no namespaces can be made, without a home and from `/`, as whoever runs the tests."""
    restricted = namespaces_can_be_made()
    python = [sys.executable, "-m", "tests.chart.pod"]
    isolated = ["unshare", "-m", "-n", "--propagation", "private", *python, "--restricted"]
    done = subprocess.run(
        isolated if restricted else [*python, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert outcome["file"] == "completed", outcome
    assert "thirty days" in outcome["hit"]
    assert outcome["said"]
    assert "Application shutdown complete" in outcome["log"]
    assert "Traceback" not in outcome["log"]
    if restricted:
        assert outcome["uid"] == 1000660000
        assert outcome["read_only"]
        assert outcome["outside"] == []
