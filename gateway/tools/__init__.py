"""Tools that the gateway runs, and LlamaStack's tool groups and connectors."""
