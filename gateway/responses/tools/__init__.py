"""The tools that the gateway runs itself, one module for each kind."""
