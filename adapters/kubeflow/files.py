"""Files that belong to the adapter."""

from pathlib import Path

__all__ = ["PIPELINE"]

PIPELINE = Path(__file__).with_name("pipeline.yaml")
"""The compiled pipeline."""
