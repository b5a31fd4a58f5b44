"""The ``PipelineServer`` port on the REST API of Kubeflow Pipelines, v2beta1."""

from __future__ import annotations

import asyncio
import json
import random
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any, get_args
from urllib.parse import quote

import httpx

from adapters.kubeflow.refusals import why_refused
from adapters.kubeflow.specification import specification
from adapters.kubeflow.tokens import TokenSource
from gateway.ports import PipelineRun, PipelineServerFailed, PipelineTask, RunState
from gateway.settings import KubeflowSettings

__all__ = ["KubeflowServer"]

_API = "apis/v2beta1/"
_ATTEMPTS = 7
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 20.0
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_PAGE = 100
_MOST_PAGES = 1000
_STATES: frozenset[str] = frozenset(get_args(RunState))


class KubeflowServer:
    """One client; the token is sent to ``settings.url`` alone, since redirects aren't followed."""

    def __init__(self, settings: KubeflowSettings, *, pause: float = _FIRST_PAUSE_SECONDS) -> None:
        """``pause`` is that before a second attempt, in seconds. Raises ``PipelineServerFailed``
        where a setting can't be used.
        """
        if not settings.url or not settings.url.startswith(("http://", "https://")):
            raise PipelineServerFailed(
                "kubeflow.url: expected the address of Kubeflow Pipelines, https://…"
            )
        context = httpx.create_ssl_context()
        if settings.ca_file is not None:
            try:
                context.load_verify_locations(cafile=settings.ca_file)
            except (OSError, ssl.SSLError) as error:
                raise PipelineServerFailed(f"kubeflow.ca_file can't be used: {error}") from error
        self._settings = settings
        self._token = TokenSource(settings)
        self._pause = pause
        self._client = httpx.AsyncClient(
            base_url=settings.url.rstrip("/").removesuffix("/apis") + "/",
            verify=context,
            timeout=httpx.Timeout(60.0, connect=10.0),
            follow_redirects=False,
        )

    async def aclose(self) -> None:
        await self._client.aclose()

    async def start(
        self,
        name: str,
        arguments: Mapping[str, Any],
        *,
        experiment: str,
        parallelism: int,
    ) -> PipelineRun:
        experiment_id = await self._experiment(experiment)
        wanted: dict[str, Any] = {
            "display_name": name,
            "experiment_id": experiment_id,
            "pipeline_spec": specification(self._settings, parallelism),
            "runtime_config": {"parameters": dict(arguments)},
        }
        if self._settings.pipeline_root is not None:
            wanted["runtime_config"]["pipeline_root"] = self._settings.pipeline_root
        if self._settings.service_account is not None:
            wanted["service_account"] = self._settings.service_account
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                # The parameter is what servers before 2.1 look at.
                body = await self._once(
                    "POST", "runs", params={"experiment_id": experiment_id}, json=wanted
                )
            except PipelineServerFailed as error:
                if not error.transient:
                    raise
                # It may have been started all the same: its name is a new one, so that shows.
                there = await self._named("runs", name, {"experiment_id": experiment_id})
                if there is not None:
                    return _run(there)
                if attempt == _ATTEMPTS:
                    raise
                await asyncio.sleep(self._wait(attempt))
            else:
                return _run(body)
        raise AssertionError("the last attempt returns or raises")

    async def run(self, run_id: str) -> PipelineRun:
        try:
            return _run(await self._get(f"runs/{quote(run_id, safe='')}"))
        except _Missing:
            raise PipelineServerFailed(f"There is no run '{run_id}'.") from None

    async def _experiment(self, name: str) -> str:
        """The id of the experiment of this name."""
        place = {"namespace": self._settings.namespace} if self._settings.namespace else {}
        there = await self._named("experiments", name, place)
        if there is None:
            wanted = {"display_name": name, **place}
            try:
                there = await self._send("POST", "experiments", json=wanted)
            except _Taken:  # by another who was as quick, or by a first attempt of ours
                there = await self._named("experiments", name, place)
        if there is None:
            raise PipelineServerFailed(
                f"The experiment '{name}' is there and can't be seen with this token."
            )
        return str(there["experiment_id"])

    async def _named(
        self, what: str, name: str, params: Mapping[str, str]
    ) -> dict[str, Any] | None:
        """The first experiment or run of this name."""
        equal = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
        asked = {**params, "filter": json.dumps({"predicates": [equal]})}
        async for one in self._pages(what, asked):
            if one.get("display_name") == name:
                return one
        return None

    async def _pages(self, what: str, params: Mapping[str, str]) -> AsyncIterator[dict[str, Any]]:
        token = ""
        for _ in range(_MOST_PAGES):
            asked = {**params, "page_size": str(_PAGE)}
            if token:
                asked["page_token"] = token
            page = await self._get(what, params=asked)
            for one in page.get(what) or []:
                yield one
            token = page.get("next_page_token") or ""
            if not token:
                return

    async def _get(self, path: str, **options: Any) -> dict[str, Any]:
        return await self._send("GET", path, **options)

    async def _send(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """For what may be done twice."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return await self._once(method, path, **options)
            except PipelineServerFailed as error:
                if not error.transient or attempt == _ATTEMPTS:
                    raise
                await asyncio.sleep(self._wait(attempt))
        raise AssertionError("the last attempt returns or raises")

    async def _once(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        headers = await self._token.headers()
        try:
            answer = await self._client.request(method, _API + path, headers=headers, **options)
        except httpx.TransportError as error:
            why = str(error) or type(error).__name__
            raise PipelineServerFailed(
                f"Kubeflow Pipelines can't be reached: {why}.", transient=True
            ) from None
        if not answer.is_success:
            message = why_refused(answer)
            if answer.status_code == 404:
                raise _Missing(message)
            if answer.status_code == 409:
                raise _Taken(message)
            raise PipelineServerFailed(message, transient=answer.status_code in _PASSING)
        try:
            body = answer.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise PipelineServerFailed(
                "Kubeflow Pipelines answered with something else than JSON, most likely a login "
                "page: is kubeflow.url its API, and does the token get past the proxy before it?"
            )
        return body

    def _wait(self, attempt: int) -> float:
        growing = self._pause * 2.0 ** (attempt - 1) * random.uniform(0.8, 1.2)  # noqa: S311
        return min(growing, _LONGEST_PAUSE_SECONDS)


class _Missing(PipelineServerFailed):
    pass


class _Taken(PipelineServerFailed):
    pass


def _run(body: Mapping[str, Any]) -> PipelineRun:
    details = (body.get("run_details") or {}).get("task_details") or []
    return PipelineRun(
        id=str(body["run_id"]),
        name=body.get("display_name") or "",
        state=_state(body),
        tasks=[_task(one) for one in details],
        error=_error(body),
    )


def _task(body: Mapping[str, Any]) -> PipelineTask:
    children = body.get("child_tasks") or []
    pods = [body.get("pod_name"), *(one.get("pod_name") for one in children)]
    return PipelineTask(
        id=str(body.get("task_id") or ""),
        name=body.get("display_name") or "",
        state=_state(body),
        pods=sorted({one for one in pods if one}),
        error=_error(body),
    )


def _state(body: Mapping[str, Any]) -> RunState:
    """Without one, or with a new one, it has not begun or is still at work."""
    state = body.get("state")
    if state in _STATES:
        return state  # type: ignore[no-any-return]  # one of RunState
    return "RUNNING" if state and state != "RUNTIME_STATE_UNSPECIFIED" else "PENDING"


def _error(body: Mapping[str, Any]) -> str | None:
    return (body.get("error") or {}).get("message") or None
