"""Kubeflow Pipelines: the ingestion pipeline, and starting and following runs of it.

``components`` and ``pipeline`` are written with the KFP SDK, which only compiling needs, in an
environment that may have nothing else; ``server`` starts runs of the compiled ``pipeline.yaml``.
"""

from adapters.kubeflow.files import PIPELINE

__all__ = ["PIPELINE"]
