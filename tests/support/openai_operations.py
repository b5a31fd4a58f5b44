"""OpenAI's operations as its Python SDK calls them; writes ``openapi/openai-operations.json``.

Run ``python -m tests.support.openai_operations`` after an update of the SDK.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import openai

_CALL = re.compile(
    r"self\._(?P<verb>get_api_list|get|post|put|patch|delete)\(\s*"
    r"(?:path_template\(\s*)?f?\"(?P<path>/[^\"]*)\""
)
_METHOD = re.compile(r'method="(?P<method>\w+)"')
FILE = Path(__file__).parents[2] / "openapi" / "openai-operations.json"


def openai_operations() -> list[tuple[str, str]]:
    """Method and path (below ``/v1``) of every call that the SDK can make."""
    found = set()
    for source in (Path(openai.__file__).parent / "resources").rglob("*.py"):
        text = source.read_text(encoding="utf-8")
        for match in _CALL.finditer(text):
            method = {"get_api_list": "get"}.get(match["verb"], match["verb"])
            if match["verb"] == "get_api_list":
                end = text.find("\n    def ", match.end())
                override = _METHOD.search(text, match.end(), end if end > 0 else len(text))
                method = override["method"] if override else method
            path = re.sub(
                r"\{[^}]*\}",
                lambda name: name.group().split("!")[0].rstrip("}") + "}",
                match["path"],
            )
            found.add((method.upper(), path.partition("?")[0]))
    return sorted(found, key=lambda operation: operation[::-1])


if __name__ == "__main__":
    FILE.write_text(json.dumps(openai_operations(), indent=0) + "\n", encoding="utf-8")
