"""Every call is traced from the client's span through the gateway's to vLLM's own."""

from __future__ import annotations

import secrets

from openai import OpenAI

from tests.real.conftest import RealVllm
from tests.support.gateway import GatewayProcess
from tests.support.otlp import Collector

SERVER, CLIENT = 2, 3
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


def test_a_call_is_one_trace_down_to_vllm(
    gateway: GatewayProcess, collector: Collector, vllm_chat: RealVllm
) -> None:
    """caller → POST /v1/chat/completions → chat MODEL → llm_request, each the next one's parent."""
    trace, caller = secrets.token_hex(16), secrets.token_hex(8)
    client = OpenAI(base_url=gateway.base_url, api_key="none", max_retries=0)
    stream = client.chat.completions.create(
        model=vllm_chat.model,
        messages=QUESTION,
        max_tokens=8,
        temperature=0,
        stream=True,
        extra_headers={"traceparent": f"00-{trace}-{caller}-01"},
    )
    assert len(list(stream)) > 2

    spans = collector.wait_for(lambda span: span.trace_id == trace, count=3, within=30)
    [request] = [span for span in spans if span.name == "POST /v1/chat/completions"]
    [call] = [span for span in spans if span.name == f"chat {vllm_chat.model}"]
    [vllm] = [span for span in spans if span.name == "llm_request"]
    assert (request.kind, call.kind, vllm.kind) == (SERVER, CLIENT, SERVER)
    assert request.parent_id == caller
    assert call.parent_id == request.span_id
    assert vllm.parent_id == call.span_id


def test_the_call_span_says_what_vllm_says(
    gateway: GatewayProcess, collector: Collector, vllm_chat: RealVllm
) -> None:
    """Token counts of the gateway's span are those of vLLM's; it lasts as long as the stream."""
    trace = secrets.token_hex(16)
    client = OpenAI(base_url=gateway.base_url, api_key="none", max_retries=0)
    for _ in client.chat.completions.create(
        model=vllm_chat.model,
        messages=QUESTION,
        max_tokens=20,
        temperature=0,
        stream=True,
        extra_headers={"traceparent": f"00-{trace}-{secrets.token_hex(8)}-01"},
    ):
        pass
    spans = collector.wait_for(lambda span: span.trace_id == trace, count=3, within=30)
    [call] = [span for span in spans if span.name.startswith("chat ")]
    [vllm] = [span for span in spans if span.name == "llm_request"]
    said = call.attributes
    assert said["gen_ai.usage.input_tokens"] == vllm.attributes["gen_ai.usage.prompt_tokens"]
    assert said["gen_ai.usage.output_tokens"] == vllm.attributes["gen_ai.usage.completion_tokens"]
    assert said["gen_ai.response.finish_reasons"] == ["stop"]
    assert 0 < said["gen_ai.response.time_to_first_chunk"] <= (call.end - call.start) / 1e9
    # vLLM's clock of the span starts and ends inside of ours, within what a callback takes.
    assert vllm.start >= call.start
    assert call.end - vllm.end > -50_000_000


def test_an_unsampled_caller_is_not_recorded(
    gateway: GatewayProcess, collector: Collector, vllm_chat: RealVllm
) -> None:
    """A caller that says "not sampled" is obeyed, by the gateway and by vLLM."""
    unsampled, sampled = secrets.token_hex(16), secrets.token_hex(16)
    client = OpenAI(base_url=gateway.base_url, api_key="none", max_retries=0)
    for trace, flags in ((unsampled, "00"), (sampled, "01")):
        client.chat.completions.create(
            model=vllm_chat.model,
            messages=QUESTION,
            max_tokens=2,
            extra_headers={"traceparent": f"00-{trace}-{secrets.token_hex(8)}-{flags}"},
        )
    collector.wait_for(lambda span: span.trace_id == sampled, count=3, within=30)
    assert not [span for span in collector.spans if span.trace_id == unsampled]
