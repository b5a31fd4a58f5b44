"""Anthropic's ``/v1/messages``, which vLLM serves."""
