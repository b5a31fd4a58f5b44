"""A batch on real vLLM servers."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from openai import OpenAI
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion

from tests.real.conftest import RealVllm
from tests.support.batches import CHAT, OVER, chat_line, jsonl, line
from tests.support.gateway import GatewayProcess


@pytest.fixture(scope="module")
def client(gateway: GatewayProcess) -> OpenAI:
    return OpenAI(base_url=gateway.base_url, api_key="none", max_retries=0)


def done(client: OpenAI, lines: list[dict[str, Any]], endpoint: str) -> tuple[Any, str, str]:
    """The batch, and the texts of its two files."""
    file = client.files.create(file=("in.jsonl", jsonl(lines)), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h")
    while batch.status not in OVER:
        time.sleep(0.2)
        batch = client.batches.retrieve(batch.id)
    output, errors = (
        client.files.content(one).text if one else ""
        for one in (batch.output_file_id, batch.error_file_id)
    )
    return batch, output, errors


def test_a_batch_of_chats(client: OpenAI, vllm_chat: RealVllm) -> None:
    """Answers, what vLLM refuses, and what all of it cost."""
    lines = [chat_line(f"name a colour {n}", vllm_chat.model, max_tokens=8) for n in range(12)]
    lines.append(chat_line("bad", vllm_chat.model, temperature=-1))
    batch, output, errors = done(client, lines, CHAT)
    assert batch.status == "completed", batch
    assert (batch.request_counts.completed, batch.request_counts.failed) == (12, 1)
    bodies = [_body(one) for one in output.splitlines()]
    answers = [ChatCompletion.model_validate(body) for body in bodies]
    assert all(answer.choices[0].message.content for answer in answers)
    assert batch.usage.output_tokens == sum(one.usage.completion_tokens for one in answers)
    [wrong] = errors.splitlines()
    assert _body(wrong)["error"]["param"] == "temperature"


def test_a_batch_of_embeddings(client: OpenAI, vllm_embeddings: RealVllm) -> None:
    """The vectors that the endpoint itself gives."""
    model, endpoint = vllm_embeddings.model, "/v1/embeddings"
    lines = [line(word, endpoint, {"model": model, "input": word}) for word in ("gull", "tern")]
    batch, output, _ = done(client, lines, endpoint)
    assert (batch.status, batch.model) == ("completed", model)
    first = CreateEmbeddingResponse.model_validate(_body(output.splitlines()[0]))
    direct = client.embeddings.create(model=model, input="gull", encoding_format="float")
    assert first.data[0].embedding == pytest.approx(direct.data[0].embedding, abs=1e-3)


def _body(result: str) -> dict[str, Any]:
    return json.loads(result)["response"]["body"]
