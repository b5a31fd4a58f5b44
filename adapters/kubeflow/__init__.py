"""Kubeflow Pipelines: the ingestion pipeline, and starting and following runs of it."""
