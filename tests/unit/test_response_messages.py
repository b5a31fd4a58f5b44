"""Items become the messages that a chat template knows, whatever mixture of them a context is."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.errors import InvalidRequest
from gateway.items.parsing import parse_items
from gateway.responses.messages import chat_messages, check_calls, led
from gateway.responses.sealed import seal, unseal

USER = {"role": "user", "content": "a"}
CALL = {"type": "function_call", "call_id": "1", "name": "f", "arguments": '{"a":1}'}
OUTPUT = {"type": "function_call_output", "call_id": "1", "output": "x"}
THOUGHT = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "t"}]}
SEARCH = {
    "type": "file_search_call",
    "id": "fs_1",
    "queries": ["lamp"],
    "results": [{"filename": "a.txt", "text": "The lamp."}, {"filename": "b.txt", "text": "Oil."}],
}
MCP = {
    "type": "mcp_call",
    "id": "mcp_1",
    "server_label": "s",
    "name": "t",
    "arguments": "{}",
    "output": "done",
}


def messages(*items: Any, room: int = 1000) -> list[dict[str, Any]]:
    parsed = parse_items(items, "input")

    def parts(content: Any) -> Any:
        return "\n".join(part["text"] for part in content)

    return chat_messages(parsed, parts, lambda label, name: f"{label}_{name}", room=room)


def roles(*items: Any) -> list[str]:
    return [one["role"] for one in messages(*items)]


def test_thoughts_belong_to_the_turn_at_hand() -> None:
    """They go with the calls that they led to, and are left out once the user has spoken again."""
    [_, call, _] = messages(USER, THOUGHT, CALL, OUTPUT)
    assert call["reasoning"] == "t"
    for item in messages(USER, THOUGHT, CALL, OUTPUT, USER):
        assert "reasoning" not in item
    for item in messages(USER, THOUGHT, {"role": "assistant", "content": "b"}, USER):
        assert "reasoning" not in item
    [_, said] = messages(USER, THOUGHT, {"role": "assistant", "content": "b"})
    assert (said["content"], said["reasoning"]) == ("b", "t")


def test_thoughts_are_read_from_their_seal() -> None:
    """Where they come without their text; what another server has sealed is passed by."""
    sealed = {"type": "reasoning", "summary": [], "encrypted_content": seal("secret")}
    assert messages(USER, sealed, CALL, OUTPUT)[1]["reasoning"] == "secret"
    foreign = {**sealed, "encrypted_content": "gAAAAAB"}
    assert not messages(USER, foreign, CALL, OUTPUT)[1].get("reasoning")
    both = messages(USER, THOUGHT, THOUGHT, CALL, OUTPUT)
    assert both[1]["reasoning"] == "tt"


def test_words_and_calls_of_one_turn_are_one_message() -> None:
    """So are calls beside each other; a call after a result is another turn's."""
    said = {"role": "assistant", "content": "Let me see."}
    second = {**CALL, "call_id": "2"}
    [_, both, _, _] = messages(USER, said, CALL, second, OUTPUT, {**OUTPUT, "call_id": "2"})
    assert (both["content"], len(both["tool_calls"])) == ("Let me see.", 2)
    assert roles(USER, CALL, OUTPUT, second, {**OUTPUT, "call_id": "2"}) == [
        "user",
        "assistant",
        "tool",
        "assistant",
        "tool",
    ]


def test_what_the_gateway_ran_is_a_call_with_its_result() -> None:
    """Searches as far as they fit, tools of servers under the name that the model knows."""
    [_, search, found, call, done] = messages(USER, SEARCH, MCP)
    assert search["tool_calls"][0]["function"] == {
        "name": "file_search",
        "arguments": '{"query":"lamp"}',
    }
    assert found["tool_call_id"] == search["tool_calls"][0]["id"] == "fs_1"
    assert found["content"] == "[1] a.txt\nThe lamp.\n\n[2] b.txt\nOil."
    assert call["tool_calls"][0]["function"]["name"] == "s_t"
    assert done["content"] == "done"
    assert len(messages(USER, SEARCH, room=10)[2]["content"]) == 10


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ({"type": "http_error", "code": 500, "message": "broken"}, "Error: broken"),
        ({"content": [{"type": "text", "text": "bad"}, "odd"]}, "Error: bad"),
        ("plain", "Error: plain"),
        (5, "Error: 5"),
    ],
)
def test_what_failed_is_told(error: Any, told: str) -> None:
    """In whichever shape an error is kept."""
    assert messages(USER, {**MCP, "output": None, "error": error})[2]["content"] == told


def test_what_a_model_is_not_shown_is_left_out() -> None:
    """Lists of tools, approvals, searches of the web, and searches whose results are not known."""
    tools = {"type": "mcp_list_tools", "server_label": "s", "tools": []}
    request = {**MCP, "type": "mcp_approval_request", "id": "mcpr_1"}
    answer = {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True}
    web = {"type": "web_search_call", "id": "ws_1"}
    bare = {**SEARCH, "results": None}
    assert roles(USER, tools, request, answer, web, bare) == ["user"]


@pytest.mark.parametrize("arguments", ["", "[]", "nope", '"a"', '{"a": ', "[" * 5000, "5"])
def test_bad_arguments_are_made_safe(arguments: str) -> None:
    """Chat templates fail on what isn't a JSON object."""
    [_, call, _] = messages(USER, {**CALL, "arguments": arguments}, OUTPUT)
    assert call["tool_calls"][0]["function"]["arguments"] == "{}"


def test_a_summary_is_the_users() -> None:
    """It says what it is."""
    sealed = {"type": "compaction", "encrypted_content": seal("Sunny.")}
    assert messages(sealed, USER)[0] == {
        "role": "user",
        "content": "Summary of the conversation so far:\nSunny.",
    }


def test_a_seal_is_only_opened_whole() -> None:
    """Whatever else comes is refused, not misread."""
    assert unseal(seal("a \x00 😀")) == "a \x00 😀"
    for odd in ("", "x", "understudy-1:", "understudy-1:QQ==", seal("a")[:-4], "é", "=" * 100):
        with pytest.raises(InvalidRequest):
            unseal(odd)


def test_every_call_has_its_output() -> None:
    """And every output its call, in OpenAI's words."""
    check_calls(parse_items([CALL, OUTPUT], "input"))
    with pytest.raises(InvalidRequest, match="No tool output found for function call 1"):
        check_calls(parse_items([CALL], "input"))
    with pytest.raises(InvalidRequest, match="No tool call found for function call output"):
        check_calls(parse_items([OUTPUT], "input"))


def test_the_systems_words_are_one_message() -> None:
    """At the beginning; what isn't mere text stays as it is, and so does what comes later."""
    system = {"role": "system", "content": "b"}
    user = {"role": "user", "content": "c"}
    assert led([user], "") == [user]
    assert led([user], "a") == [{"role": "system", "content": "a"}, user]
    both = {"role": "system", "content": "a\n\nb"}
    assert led([system, user, system], "a") == [both, user, system]
    twice = {"role": "system", "content": "b\n\nb"}
    assert led([system, system, user], "") == [twice, user]
    picture = {"role": "system", "content": [{"type": "image_url"}]}
    assert led([picture, system], "a") == [{"role": "system", "content": "a"}, picture, system]
