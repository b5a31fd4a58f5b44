"""Real client libraries, each in its own environment, talking to the gateway."""
