"""``understudy check``."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any

import click
import msgspec

from gateway.check.everything import probes_of
from gateway.check.finding import Finding
from gateway.check.probe import DEFAULT_SECONDS, run_all
from gateway.check.report import as_json, as_table, exit_status
from gateway.check.systems import Systems
from gateway.configuration import load_settings
from gateway.settings import Settings, SettingsError

__all__ = ["check_command"]

_LINGER_SECONDS = 1.0

SystemsFactory = Callable[[Settings], Systems]


def check_command(
    systems_of: SystemsFactory, *, leave: Callable[[int], object] = os._exit
) -> click.Command:
    """The command; ``systems_of`` makes the adapters that the server would use.

    ``leave`` ends the process where threads that hang at a system would keep it.
    """

    @click.command("check")
    @click.option(
        "--config",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        envvar="UNDERSTUDY_CONFIG",
        help="A YAML file with settings.",
    )
    @click.option("--vllm", multiple=True, metavar="URL", help="A vLLM server. May be repeated.")
    @click.option("--data-dir", help="The only folder that is written to.")
    @click.option("--json", "as_document", is_flag=True, help="Print JSON instead of a table.")
    @click.option("--strict", is_flag=True, help="Fail for warnings too.")
    @click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=DEFAULT_SECONDS,
        show_default=True,
        help="Seconds for one system; what is slow by nature gets a multiple.",
    )
    @click.option("--verbose", is_flag=True, help="Show what is logged on the way.")
    @click.pass_context
    def command(
        context: click.Context,
        config: Path | None,
        vllm: tuple[str, ...],
        data_dir: str | None,
        *,
        as_document: bool,
        strict: bool,
        timeout: float,
        verbose: bool,
    ) -> None:
        """Reach every configured system as the server would, and say what works and what helps.

        Nothing that lasts is changed. The exit status is 0 where nothing failed, else 1.
        """
        _quiet(verbose=verbose)
        before = _lasting()
        try:
            settings = _load(config, vllm, data_dir)
        except SettingsError as error:
            findings = [_not_loaded(config, error)]
        else:
            findings = _run(run_all(probes_of(systems_of(settings)), seconds=timeout))
        status = exit_status(findings, strict=strict)
        width = shutil.get_terminal_size((120, 24)).columns
        click.echo(as_json(findings, status) if as_document else as_table(findings, width=width))
        if _linger(_lasting() - before):
            sys.stdout.flush()
            leave(status)
        context.exit(status)

    return command


def _run(looks: Coroutine[Any, Any, list[Finding]]) -> list[Finding]:
    """As ``asyncio.run`` does, but without a wait for threads that hang at a system."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(looks)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _lasting() -> set[threading.Thread]:
    """Threads that the end of the process would wait for."""
    return {one for one in threading.enumerate() if not one.daemon}


def _linger(threads: Iterable[threading.Thread]) -> bool:
    """Whether one of them is still there after a moment."""
    end = time.monotonic() + _LINGER_SECONDS
    for one in threads:
        one.join(max(0.0, end - time.monotonic()))
    return any(one.is_alive() for one in threads)


def _load(config: Path | None, vllm: tuple[str, ...], data_dir: str | None) -> Settings:
    """The settings as ``understudy serve`` with these options has them."""
    environment: Mapping[str, str] = os.environ
    if data_dir is not None:
        # As YAML, which is what the environment's values are read as.
        text = msgspec.json.encode(data_dir).decode()
        environment = {**environment, "UNDERSTUDY_DATA_DIR": text}
    settings = load_settings(config, environment)
    if vllm:
        servers = [*msgspec.to_builtins(settings.discover), *vllm]
        text = msgspec.json.encode(servers).decode()
        settings = load_settings(config, {**environment, "UNDERSTUDY_DISCOVER": text})
    return settings


def _not_loaded(config: Path | None, error: SettingsError) -> Finding:
    return Finding(
        system="settings",
        address=str(config or "the environment"),
        state="failed",
        found=str(error),
        mend="Correct it; nothing else was looked at.",
        seconds=0.0,
    )


def _quiet(*, verbose: bool) -> None:
    """What adapters log is in the table, in better words."""
    if verbose:
        logging.basicConfig(level=logging.INFO)
    else:
        logging.getLogger().addHandler(logging.NullHandler())
