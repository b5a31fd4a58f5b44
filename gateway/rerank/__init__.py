"""Reranking: ``/v1/rerank``, Cohere's ``/v2/rerank`` and LlamaStack's ``/v1alpha/inference/rerank``."""
