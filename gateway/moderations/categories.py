"""What guards call things, in OpenAI's categories: the one table.

Llama Guard's S-codes, Granite Guardian's risks, and the types of detections that FMS detectors
give. Something that OpenAI has no category for is flagged with none of them true; its own name is
in ``metadata.violation_type``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

from gateway.settings import ModerationCategory

__all__ = ["CATEGORIES", "HAZARDS", "JUDGED_IN_IMAGES", "openai_categories"]

CATEGORIES: tuple[ModerationCategory, ...] = get_args(ModerationCategory)

JUDGED_IN_IMAGES: frozenset[ModerationCategory] = frozenset(
    {
        *("self-harm", "self-harm/instructions", "self-harm/intent"),
        *("sexual", "violence", "violence/graphic"),
    }
)
"""The others are of texts only, at OpenAI as well."""

HAZARDS: dict[str, str] = {
    "S1": "Violent crimes",
    "S2": "Non-violent crimes",
    "S3": "Sex-related crimes",
    "S4": "Child sexual exploitation",
    "S5": "Defamation",
    "S6": "Specialized advice",
    "S7": "Privacy",
    "S8": "Intellectual property",
    "S9": "Indiscriminate weapons",
    "S10": "Hate",
    "S11": "Suicide and self-harm",
    "S12": "Sexual content",
    "S13": "Elections",
    "S14": "Code interpreter abuse",
}
"""MLCommons' hazards under Llama Guard's codes."""

_TABLE: dict[str, tuple[ModerationCategory, ...]] = {
    "s1": ("violence", "illicit", "illicit/violent"),
    "s2": ("illicit",),
    "s3": ("sexual", "illicit"),
    "s4": ("sexual", "sexual/minors"),
    "s5": ("harassment",),
    "s6": (),
    "s7": (),
    "s8": (),
    "s9": ("illicit", "illicit/violent"),
    "s10": ("hate",),
    "s11": ("self-harm",),
    "s12": ("sexual",),
    "s13": (),
    "s14": ("illicit",),
    "harm": (),
    "social_bias": ("hate",),
    "jailbreak": (),
    "violence": ("violence",),
    "profanity": ("harassment",),
    "sexual_content": ("sexual",),
    "unethical_behavior": ("illicit",),
    "harm_engagement": (),
    "evasiveness": (),
    "hap": ("hate", "harassment"),
    "toxicity": ("harassment",),
    "pii": (),
}


def openai_categories(
    name: str, own: Mapping[str, Sequence[ModerationCategory]]
) -> Sequence[ModerationCategory]:
    """The categories of what a guard calls by this name; ``own`` is from its settings."""
    if name in own:
        return own[name]
    plain = name.lower().replace("-", "_").replace(" ", "_")
    if plain in _TABLE:
        return _TABLE[plain]
    return [category for category in CATEGORIES if category == name.lower()]
