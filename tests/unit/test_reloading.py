"""When the configuration is read again, and what is taken over."""

from __future__ import annotations

import signal
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway import reloading
from gateway.configuration import load_settings
from gateway.reloading import Reloading
from gateway.serving import wait_to_reload
from gateway.settings import Settings, SettingsError
from tests.support.inprocess import until

pytestmark = pytest.mark.anyio

A, B = "discover: [http://a]", "discover: [http://b]"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(reloading, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(reloading, "SETTLING_SECONDS", 0.02)


class Rig:
    def __init__(self, file: Path) -> None:
        self.applied: list[list[str]] = []
        self.told: list[str] = []
        self.refuses = False
        self.reloading = Reloading(file, load_settings(file, {}), self.apply, self.told.append)

    def apply(self, settings: Settings) -> None:
        if self.refuses:
            raise SettingsError("no such server")
        self.applied.append(list(settings.discover))


@asynccontextmanager
async def watching(file: Path):
    rig = Rig(file)
    async with rig.reloading.running():
        yield rig


async def test_a_config_map_that_is_swapped_is_noticed(tmp_path):
    """The kubelet renames the link ``..data``; the file's own path stays a link to the same."""
    for name, text in (("..1", A), ("..2", B)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "understudy.yaml").write_text(text)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "understudy.yaml").symlink_to("..data/understudy.yaml")
    async with watching(tmp_path / "understudy.yaml") as rig:
        (tmp_path / "..data_tmp").symlink_to("..2")
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")
        await until(lambda: rig.applied, "the change")
    assert rig.applied == [["http://b"]]


async def test_a_file_that_vanishes_for_a_while_changes_nothing(tmp_path):
    """It is read when it is back."""
    file = tmp_path / "understudy.yaml"
    file.write_text(A)
    async with watching(file) as rig:
        file.unlink()
        await rig.reloading.reload()
        assert rig.told == ["invalid"]
        file.write_text(B)
        await until(lambda: rig.applied, "the change")
    assert rig.applied == [["http://b"]]


async def test_what_is_the_same_is_not_applied(tmp_path):
    """A touched file, or a comment in it, disturbs nothing."""
    file = tmp_path / "understudy.yaml"
    file.write_text(A)
    rig = Rig(file)
    file.write_text(f"# A comment\n{A}\nlimits: {{max_body_bytes: 7}}")
    await rig.reloading.reload()
    assert (rig.applied, rig.told) == ([], ["unchanged"])


async def test_what_can_t_be_applied_is_tried_again_next_time(tmp_path):
    """A server whose TLS files come later is a change until it is taken over."""
    file = tmp_path / "understudy.yaml"
    file.write_text(A)
    rig = Rig(file)
    file.write_text(B)
    rig.refuses = True
    await rig.reloading.reload()
    rig.refuses = False
    await rig.reloading.reload()
    assert rig.told == ["invalid", "applied"]
    assert rig.applied == [["http://b"]]


async def test_a_crash_of_the_taking_over_is_survived(tmp_path, monkeypatch):
    """Whatever goes wrong, the watch goes on."""
    file = tmp_path / "understudy.yaml"
    file.write_text(A)
    rig = Rig(file)
    monkeypatch.setattr(reloading, "load_settings", lambda *_: 1 / 0)
    await rig.reloading.reload()
    assert rig.told == ["invalid"]


async def test_what_changes_while_the_process_starts_is_taken_over(tmp_path):
    """Between the first reading and the time in which changes are looked for."""
    file = tmp_path / "understudy.yaml"
    file.write_text(A)
    rig = Rig(file)
    file.write_text(B)
    async with rig.reloading.running():
        await until(lambda: rig.applied, "the change")
    assert (rig.applied, rig.told) == ([["http://b"]], ["applied"])


async def test_sighup_ends_no_process_that_is_about_to_listen_or_has_listened(tmp_path):
    """At the start and at the end of a process too."""
    file = tmp_path / "understudy.yaml"
    file.write_text(A)
    before = signal.getsignal(signal.SIGHUP)
    try:
        wait_to_reload()
        signal.raise_signal(signal.SIGHUP)
        async with watching(file):
            pass
        signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
