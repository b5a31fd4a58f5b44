"""Understudy: an OpenAI-compatible gateway that stands in for LlamaStack."""

__version__ = "0.1.0"
