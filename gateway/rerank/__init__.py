"""Reranking: ``/v1/rerank``, Cohere's ``/v2/rerank``, LlamaStack's ``inference/rerank``."""
