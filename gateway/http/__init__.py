"""What "OpenAI over HTTP" means, whatever the endpoint: bodies, event streams, disconnects."""
