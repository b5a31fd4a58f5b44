"""A stand-in for the API server of Kubeflow Pipelines (v2beta1), for faults made on purpose.

    with PipelinesApi(script=[("PENDING", {}), ("SUCCEEDED", {"plan": "SUCCEEDED"})]) as api: …

Paths, paging, filters, shapes and errors are those that KFP's own SDK knows (tests/real has it talk
to this): lists that are empty are left out, and errors are gRPC's statuses as JSON. Before it is a
proxy, as on OpenShift AI, that answers without a good token by itself. A run shows the next entry
of `script` each time it is read: its own state, and that of its tasks by name (`name#2` is a second
turn of a loop).
"""

from __future__ import annotations

import json
import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

API = "/apis/v2beta1"
PAGE = 2  # the most that a page holds, so that lists have several
Script = list[tuple[str, dict[str, str]]]


@dataclass
class Fault:
    """What the next requests with this method and path get instead of an answer.

    `drop` cuts the connection, `lose` does so after the request was carried out; `login` redirects
    to a page, `page` is one with 200. A number is a status.
    """

    method: str
    path: str
    what: int | Literal["drop", "lose", "login", "page"]
    times: int = 1


@dataclass
class Received:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class Run:
    body: dict[str, Any]
    script: Script
    reads: int = field(default=0)


class PipelinesApi:
    """On a free port of loopback. `token` is what the proxy lets pass."""

    def __init__(
        self,
        script: Script | None = None,
        *,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.script = script or [("SUCCEEDED", {})]
        self.token = token
        self.experiments: list[dict[str, Any]] = []
        self.runs: dict[str, Run] = {}
        self.faults: list[Fault] = []
        self.requests: list[Received] = []
        self.read = threading.Event()
        """A run was read."""
        self._server = ThreadingHTTPServer(
            ("127.0.0.1", 0), type("Handler", (_Handler,), {"api": self})
        )
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()

    def experiment(self, name: str, namespace: str = "") -> dict[str, Any]:
        made = {
            "experiment_id": str(uuid4()),
            "display_name": name,
            "created_at": "2026-10-01T08:00:00Z",
            "last_run_created_at": "1970-01-01T00:00:00Z",
            "storage_state": "AVAILABLE",
        }
        self.experiments.append(made | ({"namespace": namespace} if namespace else {}))
        return made

    @property
    def started(self) -> list[dict[str, Any]]:
        """The requests for runs that were carried out."""
        return [run.body for run in self.runs.values()]

    def answer(self, request: Received) -> tuple[int, Any]:
        match request.method, request.path.removeprefix(API).split("/")[1:]:
            case "GET", ["healthz"]:
                return 200, {"multi_user": False}
            case "GET", ["experiments", experiment_id]:
                return 200, next(
                    one for one in self.experiments if one["experiment_id"] == experiment_id
                )
            case "GET", ["experiments"]:
                wanted = [
                    one
                    for one in self.experiments
                    if one.get("namespace", "") == request.query.get("namespace", "")
                ]
                return 200, _page("experiments", wanted, request.query)
            case "POST", ["experiments"]:
                name, namespace = request.body["display_name"], request.body.get("namespace", "")
                if any(one["display_name"] == name for one in self.experiments):
                    return 409, _status(6, f"Already exist error: The name {name} already exist.")
                return 200, self.experiment(name, namespace)
            case "GET", ["runs"]:
                return 200, _page(
                    "runs", [_shown(one) for one in self.runs.values()], request.query
                )
            case "POST", ["runs"]:
                run = Run(request.body | {"run_id": str(uuid4())}, self.script)
                self.runs[run.body["run_id"]] = run
                return 200, _shown(run)
            case "GET", ["runs", run_id] if run_id in self.runs:
                run = self.runs[run_id]
                run.reads += 1
                self.read.set()
                return 200, _shown(run)
            case "GET", ["runs", run_id]:
                return 404, _status(5, f"Failed to get a run: ResourceNotFoundError: {run_id}")
        return 404, _status(5, "Not Found")


def _page(what: str, found: list[dict[str, Any]], query: dict[str, str]) -> dict[str, Any]:
    for predicate in json.loads(query.get("filter", "{}")).get("predicates", []):
        # Names are compared as a prefix, as a server that goes by other rules might do.
        found = [one for one in found if one[predicate["key"]].startswith(predicate["stringValue"])]
    start = int(query.get("page_token") or 0)
    size = min(int(query.get("page_size") or PAGE), PAGE)
    page: dict[str, Any] = {"total_size": len(found)} if found else {}
    if shown := found[start : start + size]:
        page[what] = shown
    if start + size < len(found):
        page["next_page_token"] = str(start + size)
    return page


def _shown(run: Run) -> dict[str, Any]:
    state, tasks = run.script[min(max(run.reads - 1, 0), len(run.script) - 1)]
    if not run.reads:
        state, tasks = "PENDING", {}
    details = [
        {
            "run_id": run.body["run_id"],
            "task_id": f"{number}-{name}",
            "display_name": name.partition("#")[0],
            "create_time": "2026-10-01T08:00:00Z",
            "start_time": "2026-10-01T08:00:01Z",
            "state": told,
            "child_tasks": [{"pod_name": f"understudy-ingestion-{number}"}],
            **({"error": _status(2, "Error (exit code 1)")} if told == "FAILED" else {}),
        }
        for number, (name, told) in enumerate(tasks.items())
    ]
    body = {name: value for name, value in run.body.items() if name != "pipeline_spec"}
    ended = {"error": _status(2, "Run failed")} if state == "FAILED" else {}
    return {
        "created_at": "2026-10-01T08:00:00Z",
        "storage_state": "AVAILABLE",
        **body,
        "state": state,
        "state_history": [{"update_time": "2026-10-01T08:00:00Z", "state": state}],
        **ended,
        **({"run_details": {"task_details": details}} if details else {}),
    }


def _status(code: int, message: str) -> dict[str, Any]:
    return {"error": message, "code": code, "message": message, "details": []}


class _Handler(BaseHTTPRequestHandler):
    api: PipelinesApi
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._do()

    def do_POST(self) -> None:
        self._do()

    def _do(self) -> None:
        parts = urlsplit(self.path)
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        request = Received(
            self.command,
            parts.path,
            {name: values[0] for name, values in parse_qs(parts.query).items()},
            {name.lower(): value for name, value in self.headers.items()},
            json.loads(raw) if raw else None,
        )
        self.api.requests.append(request)
        fault = self._fault(request)
        if fault == "lose":
            self.api.answer(request)
        match fault:
            case "drop" | "lose":
                self.close_connection = True
                self.connection.close()
            case "login":
                self._answer(302, b"", {"location": "https://login.example.com/oauth/authorize"})
            case "page":
                self._answer(200, b"<html>Log in</html>", {"content-type": "text/html"})
            case 401 | 403 | 503 as status:
                code = {401: 16, 403: 7, 503: 14}[status]
                self._answer(status, _status(code, f"as told: {status}"))
            case _:
                self._answer(*self._answered(request))

    def _answered(self, request: Received) -> tuple[int, Any]:
        token = self.api.token
        if token and request.headers.get("authorization") != f"Bearer {token}":
            return 401, b"Unauthorized\n"  # of kube-rbac-proxy, in plain text
        return self.api.answer(request)

    def _fault(self, request: Received) -> object:
        for one in self.api.faults:
            if one.times and one.method == request.method and request.path == API + one.path:
                one.times -= 1
                return one.what
        return None

    def _answer(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_) -> None:
        pass
