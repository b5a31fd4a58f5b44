"""Guardrails of a response: what goes in and what comes out is judged by shields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.identity.principal import Principal
from gateway.observability.activity import Activity
from gateway.responses.inputs import InputReader
from gateway.responses.messages import chat_messages
from gateway.responses.stream import ResponseStream
from gateway.responses.writers import Check, MessageWriter
from gateway.shields.service import ShieldService

__all__ = ["Guard"]


REFUSAL = "I can't help with that."


class Guard:
    """The shields of one response. A shield that can't be asked fails the response."""

    def __init__(
        self, shields: ShieldService, principal: Principal, shield_ids: Sequence[str]
    ) -> None:
        self._shields = shields
        self._principal = principal
        self._ids = shield_ids

    async def refuses_input(
        self,
        step: Activity,
        stream: ResponseStream,
        items: Sequence[Mapping[str, Any]],
        inputs: InputReader,
    ) -> bool:
        """Whether the input may not reach the model; a refusal is then the answer."""
        messages = chat_messages(items, inputs.content, lambda _, name: name, room=0)
        refusal = await self._judge(step, messages)
        if refusal is None:
            return False
        writer = MessageWriter(stream, lambda _: [], None)
        await writer.refuse(refusal)
        await writer.close()
        return True

    def check(self, step: Activity, messages: Sequence[Mapping[str, Any]]) -> Check:
        """Judges what the model says after these messages."""

        async def judge(text: str) -> str | None:
            return await self._judge(step, [*messages, {"role": "assistant", "content": text}])

        return judge

    async def _judge(self, step: Activity, messages: Sequence[Mapping[str, Any]]) -> str | None:
        said = [one for one in messages if one["role"] in ("user", "assistant")]
        if not said:
            return None
        violation = await self._shields.violation(self._principal, step, self._ids, said)
        return None if violation is None else violation.user_message or REFUSAL
