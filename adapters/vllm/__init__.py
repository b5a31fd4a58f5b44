"""vLLM, and servers that speak its dialect of the OpenAI API."""

from adapters.vllm.server import VllmServer

__all__ = ["VllmServer"]
