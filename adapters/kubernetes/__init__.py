"""The cluster that the gateway runs in."""
