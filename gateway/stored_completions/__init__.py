"""Stored chat completions: ``/v1/chat/completions`` beside its ``POST``."""
