"""Remote detectors with the HTTP API of FMS guardrails, which TrustyAI runs on OpenShift AI."""

from adapters.detectors.contents import ContentsDetector

__all__ = ["ContentsDetector"]
