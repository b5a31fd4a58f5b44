"""One response to be made, with all that has been found out about it."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from gateway.identity.principal import Principal
from gateway.responses.context import Context
from gateway.responses.run import Run
from gateway.responses.tool_choice import ToolChoice

__all__ = ["Assignment"]


class Assignment(Struct, kw_only=True):
    principal: Principal
    run: Run
    context: Context
    choice: ToolChoice
    approvals: list[tuple[dict[str, Any], dict[str, Any]]]
    system: str
    """Prompt and instructions."""
    prompt_parts: list[dict[str, Any]]
    """Images and files among the prompt's variables."""
    extra: dict[str, Any]
    """Fields of the request that go to the model server as they are."""

    @property
    def items(self) -> list[tuple[str, dict[str, Any]]]:
        """All that the model is to see, each with the parameter that it is from."""
        earlier = "conversation" if self.run.request.conversation_id else "previous_response_id"
        return [
            *(("prompt", item) for item in self._prompt_items),
            *((earlier, item) for item in self.context.history),
            *((f"input[{n}]", item) for n, item in enumerate(self.context.input)),
        ]

    @property
    def _prompt_items(self) -> list[dict[str, Any]]:
        """The prompt's images and files, as an item of the user's."""
        if not self.prompt_parts:
            return []
        return [{"id": "prompt", "type": "message", "role": "user", "content": self.prompt_parts}]
