"""Text as full-text search reads it.

Milvus's standard analyser takes a word for what stands between spaces and punctuation. Chinese,
Japanese and Thai are written without spaces, so a whole clause would be one word. Here a run of
such characters becomes the pairs of neighbours in it, as Lucene's CJK analyser does: 年有二十 is
年有 有二 二十, in the text and in the query alike. Only the index sees this.
"""

from __future__ import annotations

import re

__all__ = ["words_of"]

_RUN = re.compile(
    "["
    "\u0e00-\u0e7f"  # Thai
    "\u0e80-\u0eff"  # Lao
    "\u1000-\u109f"  # Burmese
    "\u1780-\u17ff"  # Khmer
    "\u3040-\u30ff"  # Hiragana and Katakana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # Han
    "\U00020000-\U0003ffff"
    "]+"
)


def words_of(text: str) -> str:
    """The text with a space wherever a word of full-text search begins."""
    return text if text.isascii() else _RUN.sub(_pairs, text)


def _pairs(found: re.Match[str]) -> str:
    run = found[0]
    if len(run) == 1:
        return f" {run} "
    pairs = (run[at : at + 2] for at in range(len(run) - 1))
    return f" {' '.join(pairs)} "
