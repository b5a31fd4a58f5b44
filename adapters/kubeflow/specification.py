"""The compiled pipeline, set up for one installation."""

from __future__ import annotations

from typing import Any

import yaml

from adapters.kubeflow.files import PIPELINE
from gateway.settings import KubeflowSettings

__all__ = ["specification"]

_S3_KEY = "AWS_ACCESS_KEY_ID"
"""The key that tells the two secrets apart."""


def specification(settings: KubeflowSettings, parallelism: int) -> dict[str, Any]:
    """What the API takes as ``pipeline_spec``: the pipeline with the settings' image, secrets and
    environment, and with so many turns of its loop at once.
    """
    pipeline, platform = yaml.safe_load_all(PIPELINE.read_text(encoding="utf-8"))
    for executor in pipeline["deploymentSpec"]["executors"].values():
        container = executor["container"]
        if settings.image is not None:
            container["image"] = settings.image
        if settings.environment:
            container["env"] = [
                {"name": name, "value": value} for name, value in settings.environment.items()
            ]
    for task in pipeline["root"]["dag"]["tasks"].values():
        if "iteratorPolicy" in task:
            task["iteratorPolicy"]["parallelismLimit"] = parallelism
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for executor in executors.values():
        for secret in executor.get("secretAsEnv", []):
            keys = {one["secretKey"] for one in secret["keyToEnv"]}
            name = settings.s3_secret if _S3_KEY in keys else settings.gateway_secret
            _rename(secret, "secretName", name)
        for config_map in executor.get("configMapAsVolume", []):
            if settings.trusted_ca_config_map is not None:
                _rename(config_map, "configMapName", settings.trusted_ca_config_map)
    return {"pipeline_spec": pipeline, "platform_spec": platform}


def _rename(source: dict[str, Any], key: str, name: str) -> None:
    """Both forms: newer servers read the one that ends in ``Parameter``."""
    source[key] = name
    source[f"{key}Parameter"] = {"runtimeValue": {"constant": name}}
