"""Schemathesis against a gateway: every check that it has, over the document that is emitted.

    python -m tests.support.fuzzing --max-examples 200     # what `make fuzz` runs
    python -m tests.support.fuzzing --known                # with an identity

The gateway runs in this process, with faithful model servers and a vector index in memory;
schemathesis is a process of its own. `fuzzing.toml` beside this says what is checked.
"""

from __future__ import annotations

import asyncio
import copy
import json
import os
import re
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import gateway.app
from gateway.contract import openapi_document
from gateway.identity.scopes import SCOPES
from tests.support.inprocess import InProcessGateway
from tests.support.keys import bearer, make_key
from tests.support.memory import MemoryVectorIndex
from tests.support.upstream import FakeVllm

AGAIN = r"^/(v1/openai|v1alpha/(admin|connectors))(/|$)"
"""Prefixes under which handlers are once more."""
CONFIG = Path(__file__).with_name("fuzzing.toml")
CHAT, EMBEDDING, GUARD = "fake-chat", "fake-embedding", "Llama-Guard-4-12B"
EMBEDDED = ("Embedding", "Rerank")
"""What the schemas of requests begin with that are for the embedding model."""


async def fuzz(*arguments: str, folder: Path, known: bool = False) -> tuple[int, str]:
    """The exit status of ``schemathesis run`` with these arguments, and what it printed.

    ``known`` is for a gateway that asks who calls; all requests but those of the check for it
    carry a key.
    """
    async with AsyncExitStack() as stack:
        stack.enter_context(
            mock.patch.object(gateway.app, "_vector_index", lambda *_: MemoryVectorIndex())
        )
        chat = await stack.enter_async_context(FakeVllm([CHAT]))
        guard = await stack.enter_async_context(FakeVllm([GUARD], reply="\n\nsafe"))
        embedding = await stack.enter_async_context(FakeVllm([EMBEDDING], kind="embedding"))
        running = await stack.enter_async_context(
            InProcessGateway(
                discover=[chat.url, embedding.url, guard.url],
                models=[CHAT, EMBEDDING, GUARD],
                data_dir=str(folder / "data"),
                traced=False,
                ingestion={"attach_wait_seconds": 0, "embedded_worker": False},
                identity={"mode": "api_keys" if known else "none"},
                search={"rewrite_model": CHAT},
                moderation={"default_model": GUARD},
            )
        )
        document = folder / "openapi.json"
        whole = with_served_models(openapi_document(running.application.handlers))
        if known:
            key = await make_key(running, scopes=[*SCOPES])
            arguments = (*arguments, "--header", f"Authorization: {bearer(key)['authorization']}")
            whole = with_required_keys(whole)
        document.write_text(json.dumps(whole))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "schemathesis.cli",
            "--config-file",
            str(CONFIG),
            "run",
            str(document),
            "--url",
            running.root_url,
            f"--exclude-path-regex={AGAIN}",
            "--continue-on-failure",
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
        try:
            output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace")


def with_required_keys(document: dict[str, Any]) -> dict[str, Any]:
    """The document of a gateway that lets nobody in without a key."""
    for operation in (one for path in document["paths"].values() for one in path.values()):
        operation["security"] = [one for one in operation["security"] if one]
    return document


def is_tested(path: str) -> bool:
    """Whether the run asks for this path of the document."""
    return re.match(AGAIN, path) is None


def with_served_models(document: dict[str, Any]) -> dict[str, Any]:
    """The document with the names of models that there are: invented ones are only a 404."""
    narrowed = copy.deepcopy(document)
    for operation in (one for path in narrowed["paths"].values() for one in path.values()):
        content = operation.get("requestBody", {}).get("content", {})
        name = content.get("application/json", {}).get("schema", {}).get("$ref", "").split("/")[-1]
        schema = narrowed["components"]["schemas"].get(name, {})
        if "model" in schema.get("required", ()):
            served = EMBEDDING if name.startswith(EMBEDDED) else CHAT
            schema["properties"]["model"] = {"type": "string", "enum": [served]}
    return narrowed


if __name__ == "__main__":
    given = [one for one in sys.argv[1:] if one != "--known"]
    with tempfile.TemporaryDirectory(prefix="understudy-fuzz-") as name:
        made = fuzz(*given, folder=Path(name), known="--known" in sys.argv)
        status, said = asyncio.run(made)
    sys.stdout.write(said)
    sys.exit(status)
