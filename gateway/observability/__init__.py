"""Traces, metrics and logs, with the names of OpenTelemetry's semantic conventions."""
