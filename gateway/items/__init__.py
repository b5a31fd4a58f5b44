"""Items: what goes into a model, comes out of it, and is kept in conversations."""
