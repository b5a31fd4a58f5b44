"""``python -m tests.benchmarks``: the gateway beside nginx, LiteLLM and no proxy at all."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fcntl
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.benchmarks import report, tools
from tests.benchmarks.peers import GATEWAY, PEERS, UNSAMPLED, Peer, Place, find_peers, upstream
from tests.benchmarks.profiling import profile
from tests.benchmarks.scenarios import SCENARIOS, Scenario, measure, named

LIBRARIES = ("litestar", "uvicorn", "uvloop", "httptools", "msgspec", "opentelemetry-sdk")


def say(text: str) -> None:
    """Progress goes to standard error, so that the tables can be kept by themselves."""
    print(text, file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    names = ", ".join(scenario.name for scenario in SCENARIOS)
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, help="rounds, of which medians are taken (3)")
    parser.add_argument("--seconds", type=float, help="measured time of each scenario (5)")
    parser.add_argument("--quick", action="store_true", help="one round of 1.5 s: a smoke test")
    parser.add_argument("--only", default="", metavar="NAMES", help=f"some of: {names}")
    parser.add_argument("--no-litellm", action="store_true", help="leave out LiteLLM")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if anything is short")
    parser.add_argument(
        "--profile",
        nargs="?",
        const=str(tools.cache_folder() / "profile.txt"),
        metavar="FILE",
        help="no figures, but a profile of the gateway under json, or the one scenario of --only",
    )
    found = parser.parse_args()
    found.rounds = found.rounds or (1 if found.quick else 3)
    found.seconds = found.seconds or (1.5 if found.quick else 5.0)
    return found


def main() -> int:
    args = arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it, too, ends the peers
    cores = tools.choose_cores()
    tools.compiled("upstream")
    tools.compiled("load")
    with alone(), tempfile.TemporaryDirectory(prefix="understudy-bench-") as folder:
        tools.pin(os.getpid(), cores.tools)  # this process, too, keeps off the peer's core
        with upstream(cores.tools, Path(folder)) as up:
            place = Place(cores, Path(folder), up)
            if args.profile:
                target = Path(args.profile).resolve()
                print(profile(place, target, max(args.seconds, 10), args.only or "json"))
                print(f"folded stacks: {target}")
                return 0
            return bench(args, place)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Wait for another benchmark on this machine to end: the two would measure each other."""
    with (tools.cache_folder() / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another benchmark is running: waiting for it to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def bench(args: argparse.Namespace, place: Place) -> int:
    chosen = named([name for name in args.only.split(",") if name])
    available = find_peers(
        {peer.name for scenario in chosen for peer in scenario.peers}, litellm=not args.no_litellm
    )
    machine = tools.machine()
    runs: report.Runs = {}
    rss_after: list[float] = []
    total_before, stolen_before = tools.stolen()
    interrupted = False
    try:
        for number in range(1, args.rounds + 1):
            say(f"round {number} of {args.rounds}")
            for peer in PEERS:
                if peer.name not in available.versions:
                    continue
                try:
                    rss = take_turn(peer, [s for s in chosen if peer in s.peers], place, args, runs)
                except tools.BenchError as error:
                    available.skipped[peer.name] = str(error)
                    available.versions.pop(peer.name)
                    say(f"  {peer.name}: {error}")
                else:
                    if peer in (GATEWAY, UNSAMPLED):
                        rss_after.append(rss)
    except KeyboardInterrupt:
        interrupted = True
        say("interrupted: the figures so far")
    total, stolen = tools.stolen()
    machine["load_average_after"] = [round(value, 2) for value in os.getloadavg()]
    machine["stolen"] = round((stolen - stolen_before) / max(1e-9, total - total_before), 4)
    status = show(args, place, available.versions, available.skipped, machine, runs, rss_after)
    return 130 if interrupted else status


def take_turn(
    peer: Peer, scenarios: list[Scenario], place: Place, args: argparse.Namespace, runs: report.Runs
) -> float:
    """Start a peer and put each load on it. Returns its memory (MB) after the last."""
    with peer.running(place) as running:
        for scenario in scenarios:
            result = measure(scenario, peer, running, place.upstream, place.cores, args.seconds)
            runs.setdefault((scenario.name, peer.name), []).append(result)
            rate, unit = ("event_rate", "chunks/s") if scenario.stream else ("rate", "req/s")
            text = f"  {peer.name:<10} {scenario.name:<11} {result[rate]:>10,.0f} {unit}"
            if result["errors"]:
                text += f"  {result['errors']} failed: {result['first_error']}"
            say(text)
        return tools.usage(running.pid).rss_mb


def show(args, place, versions, skipped, machine, runs, rss_after) -> int:
    """Print the report; 1 with ``--strict`` if a requirement is short."""
    figures = report.Figures(runs)
    rows = report.requirements(figures, rss_after)
    libraries = {}
    for name in LIBRARIES:
        try:
            libraries[name] = version(name)
        except PackageNotFoundError:
            continue
    shared = ", all on one core: peer and tools share it" if not place.cores.separate else ""
    print(f"\n{report.requirement_table(rows)}\n\n{report.raw_table(figures)}\n")
    rounds = max(map(len, runs.values()), default=0)
    print(f"Medians of {rounds} round(s) of {args.seconds:g} s{shared}.")
    print(
        f"{machine['cores']} cores ({machine['cpu']}), load average {machine['load_average']} "
        f"before and {machine['load_average_after']} after, {100 * machine['stolen']:.1f} % stolen."
    )
    print(f"Python {machine['python']}, {', '.join(f'{k} {v}' for k, v in libraries.items())}.")
    print("Peers: " + ", ".join(f"{k} {v}".strip() for k, v in versions.items()) + ".")
    for name, why in skipped.items():
        print(f"Not measured: {name}: {why}")
    summary = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "rounds": rounds,
        "seconds": args.seconds,
        "one_core": not place.cores.separate,
        "machine": machine,
        "libraries": libraries,
        "peers": versions,
        "skipped": skipped,
        "requirements": [dataclasses.asdict(row) for row in rows],
        "runs": [
            {"scenario": scenario, "peer": peer, "round": i + 1} | run
            for (scenario, peer), taken in runs.items()
            for i, run in enumerate(taken)
        ],
    }
    print(json.dumps(summary, separators=(",", ":"), ensure_ascii=False))
    return int(args.strict and any(row.verdict == "short" for row in rows))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except tools.BenchError as problem:
        sys.exit(f"benchmarks: {problem}")
    except KeyboardInterrupt:
        sys.exit("benchmarks: interrupted")
