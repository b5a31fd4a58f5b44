"""Moderation and shields."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, field

from gateway.settings.models import BackendSettings
from gateway.settings.section import PositiveFloat, PositiveInt, Section

GuardForm = Literal["llama_guard", "granite_guardian", "prompt"]
"""How a model is asked for a judgement, and how it answers."""

ModerationCategory = Literal[
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
]
"""OpenAI's."""


class GuardModelSettings(Section, frozen=True):
    """A model of the catalog that judges content.

    ``GuardModelSettings(model="guardian", format="granite_guardian", risks=["harm", "violence"])``
    """

    model: str
    """Its id or an alias."""
    format: GuardForm | None = None
    """Found out from the model's name when left out; ``prompt`` is for any chat model."""
    risks: Annotated[list[str], Meta(min_length=1)] = field(
        default_factory=lambda: [
            "harm",
            "social_bias",
            "violence",
            "sexual_content",
            "unethical_behavior",
        ]
    )
    """For ``granite_guardian``, which is asked once for each."""
    excluded_categories: list[str] = field(default_factory=list)
    """What doesn't count, in the guard's own words: ``[S6, S13]``."""
    images: bool | None = None
    """Whether it judges images as well; found out from the model's name when left out."""
    logprobs: bool = True
    """Ask for log probabilities, which scores are made of; off for servers that refuse them."""


class DetectorSettings(Section, frozen=True):
    """A remote detector with the API of FMS guardrails and TrustyAI.

    ``DetectorSettings(name="hap", url="https://hap.detectors.svc:8443", ca_file="/etc/ca.pem")``
    """

    name: str
    """What clients call it, as a model and as a shield."""
    url: str
    detector_id: str | None = None
    """The ``detector-id`` header; ``name`` when left out."""
    params: dict[str, Any] = field(default_factory=dict)
    """``detector_params`` of each request: ``{regex: [email]}``."""
    threshold: Annotated[float, Meta(ge=0, le=1)] = 0.5
    """The score from which on a text is flagged."""
    max_characters: PositiveInt | None = None
    """A longer text is sent in pieces that overlap, for models that read only so much."""
    categories: dict[str, list[ModerationCategory]] = field(default_factory=dict)
    """OpenAI's categories for the detector's own, beside those that are known."""
    excluded_categories: list[str] = field(default_factory=list)
    """What doesn't count, in the detector's own words."""
    api_key: str | None = None
    api_key_file: str | None = None
    """A file with the bearer token, read again when it changes."""
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    timeout_seconds: PositiveFloat = 30.0
    """For each call."""

    def backend(self) -> BackendSettings:
        """How it is reached."""
        return BackendSettings(
            url=self.url,
            api_key=self.api_key,
            api_key_file=self.api_key_file,
            ca_file=self.ca_file,
            client_cert=self.client_cert,
            client_key=self.client_key,
        )


class ModerationSettings(Section, frozen=True):
    """What judges content.

    ``ModerationSettings(models=[GuardModelSettings(model="llama-guard")])``
    """

    default_model: str | None = None
    """Where a request names none; the only guard there is when left out."""
    models: list[GuardModelSettings] = field(default_factory=list)
    """Guard models, beside those of kind ``moderation``."""
    detectors: list[DetectorSettings] = field(default_factory=list)
    concurrency: PositiveInt = 32
    """Calls to guards at once, for each process."""
