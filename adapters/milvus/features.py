"""What a Milvus can do, by what it says of itself."""

from __future__ import annotations

import re

from gateway.errors import InvalidRequest
from gateway.ports import IndexFeatures

__all__ = ["features_of", "require_keyword"]

_LITE = "milvus_lite-"
_NUMBERS = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")
_KEYWORD_SINCE = (2, 5)
_KEYWORD_SINCE_LITE = (3, 0)


def features_of(version: str) -> IndexFeatures:
    """From the answer to ``GetVersion``, e.g. ``v2.3.5-lite`` or ``milvus_lite-3.2.2``.

    A build that names no numbers (of the main branch, say) is taken for a new one.
    """
    lite = version.startswith(_LITE)
    found = _NUMBERS.search(version)
    numbers = found.group(0) if found else version
    known = (int(found[1]), int(found[2])) if found else None
    since = _KEYWORD_SINCE_LITE if lite else _KEYWORD_SINCE
    return IndexFeatures(
        engine=f"{'Milvus Lite' if lite else 'Milvus'} {numbers}".strip(),
        keyword=known is None or known >= since,
    )


def require_keyword(features: IndexFeatures) -> None:
    """Raises ``InvalidRequest`` where there is no full-text search, naming what has it."""
    if not features.keyword:
        raise InvalidRequest(
            f"{features.engine} has no full-text search; "
            "Milvus 2.5 or newer, or Milvus Lite, has it."
        )
