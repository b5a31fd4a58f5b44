"""What operators and LlamaStack's own tools ask: health, version, providers, routes, metrics."""
