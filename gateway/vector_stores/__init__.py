"""Vector stores: what is in them, and how it is searched."""
