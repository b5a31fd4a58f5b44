"""Where metadata is kept: the engine, the tables and their migrations."""
