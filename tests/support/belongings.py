"""One of everything that a project can own, made over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

CHAT = "fake-chat"
TEXT = "The lamp of the lighthouse turns at night."
SAID = {"role": "user", "content": TEXT}


async def send(client: httpx.AsyncClient, path: str, **options: Any) -> Any:
    answer = await client.post(path, **options)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def make_everything(
    client: httpx.AsyncClient, extra: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """The objects as they were answered, by the route that made them; ``extra`` properties are
    added to each request that isn't a model's."""
    more = dict(extra or {})
    form = {"files": {"file": ("a.txt", TEXT.encode())}, "data": {"purpose": "assistants"}}
    form["data"] |= {name: str(value) for name, value in more.items()}
    made: dict[str, dict[str, Any]] = {}

    async def make(path: str, **options: Any) -> Any:
        if "json" in options:
            options["json"] = {**more, **options["json"]}
        made[path] = await send(client, path, **options)
        return made[path]

    file = await make("/v1/files", **form)
    store = await make("/v1/vector_stores", json={"name": "s"})
    inside = f"/v1/vector_stores/{store['id']}"
    await make(inside, json={"name": "t"})
    await make(f"{inside}/files", json={"file_id": file["id"], "attributes": {"a": 1}})
    await make(f"{inside}/files/{file['id']}", json={"attributes": {"a": 2}})
    await make(f"{inside}/file_batches", json={"file_ids": [file["id"]]})
    upload = {"bytes": 1, "filename": "a", "mime_type": "a/b", "purpose": "assistants"}
    uploaded = await make("/v1/uploads", json=upload)
    part = await make(
        f"/v1/uploads/{uploaded['id']}/parts",
        files={"data": b"a"},
        data={name: str(value) for name, value in more.items()},
    )
    await make(f"/v1/uploads/{uploaded['id']}/complete", json={"part_ids": [part["id"]]})
    talk = await make("/v1/conversations", json={"metadata": {"a": "b"}})
    await make(f"/v1/conversations/{talk['id']}", json={"metadata": {"a": "c"}})
    await make(f"/v1/conversations/{talk['id']}/items", json={"items": [SAID]})
    prompt = await make("/v1/prompts", json={"prompt": TEXT})
    await make(f"/v1/prompts/{prompt['prompt_id']}", json={"prompt": TEXT, "version": 1})
    lines = {"files": {"file": b"{}"}, "data": {"purpose": "batch"}}
    wanted = {
        "input_file_id": (await send(client, "/v1/files", **lines))["id"],
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    }
    await make("/v1/batches", json=wanted)
    asked = {"model": CHAT, "messages": [SAID], "store": True}
    made["/v1/chat/completions"] = kept = await send(client, "/v1/chat/completions", json=asked)
    await make(f"/v1/chat/completions/{kept['id']}", json={"metadata": {"a": "b"}})
    await make("/v1/responses", json={"model": CHAT, "input": TEXT})
    return made
