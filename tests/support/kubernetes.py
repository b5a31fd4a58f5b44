"""A stand-in for Kubernetes' API server that lists and watches InferenceServices.

    async with ApiServer() as api:
        api.apply(inference_service("granite", url=upstream.root_url))
        ...                                  # kserve={"api_server": api.url, ...}

Objects have the shape that KServe writes on OpenShift AI. Lists come in pages, watches are lines of
JSON with bookmarks, versions that were compacted are 410 Gone as an event, a missing right is the
403 of the real one, word for word.
"""

from __future__ import annotations

import asyncio
import copy
import json
from typing import Any
from urllib.parse import parse_qs

from gateway.http.asgi import Receive, Scope, Send
from tests.support.tool_servers import Serving, answer

TOKEN = "a-service-account-token"
NAMESPACE = "models"
ROOT = "/apis/serving.kserve.io/v1beta1/namespaces/"
BOOKMARK_SECONDS = 0.2


def inference_service(
    name: str,
    *,
    namespace: str = NAMESPACE,
    url: str | None = None,
    public_url: str | None = None,
    ready: bool = True,
    raw: bool = True,
    labels: dict[str, str] | None = None,
    args: list[str] | None = None,
    **annotations: str,
) -> dict[str, Any]:
    """As the API server has it. Annotations are those of the gateway: ``model``, ``weight``, …;
    ``auth="true"`` asks for a token."""
    notes = {f"understudy.dev/{key.replace('_', '-')}": text for key, text in annotations.items()}
    if auth := notes.pop("understudy.dev/auth", None):
        notes["security.opendatahub.io/enable-auth"] = auth
    mode = "RawDeployment" if raw else "Serverless"
    condition = "True" if ready else "False"
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"5b3f0f2e-0000-4000-8000-{abs(hash((namespace, name))) % 10**12:012d}",
            "generation": 1,
            "creationTimestamp": "2026-11-20T10:00:00Z",
            "labels": {"opendatahub.io/dashboard": "true", **(labels or {})},
            "annotations": {
                "openshift.io/display-name": name,
                "serving.kserve.io/deploymentMode": mode,
                **notes,
            },
            "finalizers": ["inferenceservice.finalizers"],
        },
        "spec": {
            "predictor": {
                "automountServiceAccountToken": False,
                "maxReplicas": 1,
                "minReplicas": 1,
                "model": {
                    "args": args or [],
                    "modelFormat": {"name": "vLLM"},
                    "name": "",
                    "resources": {"limits": {"nvidia.com/gpu": "1"}},
                    "runtime": name,
                    "storage": {"key": "aws-connection", "path": name},
                },
            }
        },
        "status": {
            **({"address": {"url": url}} if url else {}),
            **({"url": public_url} if public_url else {}),
            "components": {"predictor": {"latestCreatedRevision": "1"}},
            "conditions": [
                {"lastTransitionTime": "2026-11-20T10:01:00Z", "status": "True", "type": kind}
                for kind in ("IngressReady", "PredictorReady")
            ]
            + [
                {
                    "lastTransitionTime": "2026-11-20T10:01:00Z",
                    "status": condition,
                    "type": "Ready",
                }
            ],
            "deploymentMode": mode,
            "modelStatus": {
                "copies": {"failedCopies": 0, "totalCopies": 1},
                "states": {"activeModelState": "Loaded", "targetModelState": "Loaded"},
                "transitionStatus": "UpToDate",
            },
            "observedGeneration": 1,
        },
    }


class ApiServer(Serving):
    """`tokens` are accepted, `denied` the namespaces that may not be listed; `failing` is the
    status of every answer while it is set. `asked` are the queries that came, watches included."""

    def __init__(self, **options: Any) -> None:
        super().__init__(self._answer, path="", **options)
        self.tokens = {TOKEN}
        self.denied: set[str] = set()
        self.failing: int | None = None
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.watching = 0
        self._objects: dict[tuple[str, str], dict[str, Any]] = {}
        self._events: list[tuple[int, str, dict[str, Any], dict[str, Any] | None]] = []
        self._version = 1000
        self._oldest = 0
        self._changed = asyncio.Condition()
        self._dropping = 0

    # -- what a test does ---------------------------------------------------------------------

    async def apply(self, *objects: dict[str, Any]) -> None:
        """Create or change them."""
        for given in objects:
            made = copy.deepcopy(given)
            key = (made["metadata"]["namespace"], made["metadata"]["name"])
            before = self._objects.get(key)
            await self._happened("MODIFIED" if before else "ADDED", made, before)
            self._objects[key] = made

    async def delete(self, name: str, namespace: str = NAMESPACE) -> None:
        gone = copy.deepcopy(self._objects.pop((namespace, name)))
        await self._happened("DELETED", gone, gone)

    async def compact(self) -> None:
        """Forget every version up to now, as etcd does after some minutes."""
        self._version += 10
        self._oldest = self._version
        async with self._changed:
            self._changed.notify_all()

    async def drop_watches(self) -> None:
        """Break off every watch that is open."""
        self._dropping += 1
        async with self._changed:
            self._changed.notify_all()

    async def _happened(
        self, kind: str, one: dict[str, Any], before: dict[str, Any] | None
    ) -> None:
        self._version += 1
        one["metadata"]["resourceVersion"] = str(self._version)
        self._events.append((self._version, kind, one, before))
        async with self._changed:
            self._changed.notify_all()

    # -- the protocol -------------------------------------------------------------------------

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for _ in range(2):
                await send({"type": f"{(await receive())['type']}.complete"})
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        query = {
            name: values[0] for name, values in parse_qs(scope["query_string"].decode()).items()
        }
        path = scope["path"]
        self.asked.append((path, query))
        if self.failing is not None:
            await self._status(send, self.failing, "InternalError", "etcdserver: request timed out")
            return
        if headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
            await self._status(send, 401, "Unauthorized", "Unauthorized")
            return
        namespace, _, kind = path.removeprefix(ROOT).partition("/")
        if not path.startswith(ROOT) or kind != "inferenceservices":
            await self._status(send, 404, "NotFound", "the server could not find the resource")
        elif namespace in self.denied:
            message = (
                "inferenceservices.serving.kserve.io is forbidden: User "
                '"system:serviceaccount:gateway:understudy" cannot list resource '
                '"inferenceservices" in API group "serving.kserve.io" in the namespace '
                f'"{namespace}"'
            )
            await self._status(send, 403, "Forbidden", message)
        elif query.get("watch") == "true":
            await self._watch(send, namespace, query)
        else:
            await self._list(send, namespace, query)

    async def _list(self, send: Send, namespace: str, query: dict[str, str]) -> None:
        selector = query.get("labelSelector", "")
        found = [
            one
            for (where, _), one in sorted(self._objects.items())
            if where == namespace and matches(one, selector)
        ]
        start, limit = int(query.get("continue", 0)), int(query.get("limit", 500))
        more = start + limit < len(found)
        body = {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceServiceList",
            "metadata": {
                "resourceVersion": str(self._version),
                **({"continue": str(start + limit)} if more else {}),
            },
            "items": found[start : start + limit],
        }
        await answer(send, 200, json.dumps(body).encode())

    async def _watch(self, send: Send, namespace: str, query: dict[str, str]) -> None:
        dropping = self._dropping
        version = int(query["resourceVersion"])
        head = [(b"content-type", b"application/json"), (b"transfer-encoding", b"chunked")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        end = asyncio.get_running_loop().time() + float(query["timeoutSeconds"])
        self.watching += 1
        try:
            while asyncio.get_running_loop().time() < end:
                if version < self._oldest:
                    status = self._status_object(
                        410, "Expired", f"too old resource version: {version} ({self._version})"
                    )
                    await self._event(send, "ERROR", status)
                    break
                for at, kind, one, before in list(self._events):
                    if at > version and one["metadata"]["namespace"] == namespace:
                        version = at
                        await self._tell(send, kind, one, before, query.get("labelSelector", ""))
                if self._dropping != dropping:
                    raise ConnectionAbortedError
                try:
                    async with asyncio.timeout(BOOKMARK_SECONDS), self._changed:
                        await self._changed.wait()
                except TimeoutError:
                    version = max(version, self._version if self._quiet(version) else version)
                    mark = {
                        "kind": "InferenceService",
                        "apiVersion": "serving.kserve.io/v1beta1",
                        "metadata": {"resourceVersion": str(version), "creationTimestamp": None},
                        "spec": {"predictor": {}},
                        "status": {},
                    }
                    await self._event(send, "BOOKMARK", mark)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except ConnectionAbortedError:
            return  # without an end: the client sees its connection break
        finally:
            self.watching -= 1

    def _quiet(self, version: int) -> bool:
        return version >= self._oldest and not any(at > version for at, *_ in self._events)

    async def _tell(
        self,
        send: Send,
        kind: str,
        one: dict[str, Any],
        before: dict[str, Any] | None,
        selector: str,
    ) -> None:
        """As the watch of a selector tells it: what leaves the selection is deleted."""
        was = before is not None and matches(before, selector)
        fits = matches(one, selector)
        if kind != "DELETED" and fits:
            await self._event(send, "MODIFIED" if was else "ADDED", one)
        elif was:
            await self._event(send, "DELETED", one)

    @staticmethod
    async def _event(send: Send, kind: str, one: dict[str, Any]) -> None:
        line = json.dumps({"type": kind, "object": one}).encode() + b"\n"
        await send({"type": "http.response.body", "body": line, "more_body": True})

    async def _status(self, send: Send, code: int, reason: str, message: str) -> None:
        body = json.dumps(self._status_object(code, reason, message)).encode()
        await answer(send, code, body)

    @staticmethod
    def _status_object(code: int, reason: str, message: str) -> dict[str, Any]:
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": code,
        }


def matches(one: dict[str, Any], selector: str) -> bool:
    """``a=b,c`` : equality and existence, which is what tests need of selectors."""
    labels = one["metadata"]["labels"]
    for part in filter(None, selector.split(",")):
        key, equals, value = part.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True
