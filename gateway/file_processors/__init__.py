"""``/v1alpha/file-processors``: LlamaStack's way to a document's chunks without a vector store."""
