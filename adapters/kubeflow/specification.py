"""The compiled pipeline, set up for one installation.

What the SDK writes twice, in an old and in a new field, goes out in the old one alone: new servers
read it where the new one is missing, and old ones refuse a pipeline with a field that they don't
know. So does ``optional``: what isn't needed is left out instead.
"""

from __future__ import annotations

from typing import Any

import yaml

from adapters.kubeflow.files import PIPELINE
from gateway.settings import KubeflowSettings

__all__ = ["specification"]

_GATEWAY_KEYS = ("OPENAI_API_KEY",)
_S3_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_S3_ENDPOINT = "AWS_S3_ENDPOINT"


def specification(settings: KubeflowSettings, parallelism: int) -> dict[str, Any]:
    """What the API takes as ``pipeline_spec``: the pipeline with the settings' image, secrets and
    environment, and with so many turns of its loop at once.
    """
    pipeline, platform = yaml.safe_load_all(PIPELINE.read_text(encoding="utf-8"))
    for executor in pipeline["deploymentSpec"]["executors"].values():
        _set_up_container(executor["container"], settings)
    for task in pipeline["root"]["dag"]["tasks"].values():
        if "iteratorPolicy" in task:
            task["iteratorPolicy"]["parallelismLimit"] = parallelism
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for executor in executors.values():
        named = [one["secretName"] for one in executor.pop("secretAsEnv", [])]
        secrets = [one for one in _secrets(settings) if one[0] in named]
        executor["secretAsEnv"] = [_secret(name, keys) for _, name, keys in secrets]
        mounts = [one["mountPath"] for one in executor.pop("configMapAsVolume", [])]
        if settings.trusted_ca_config_map is not None:
            executor["configMapAsVolume"] = [
                {"configMapName": settings.trusted_ca_config_map, "mountPath": mount}
                for mount in mounts
            ]
    return {"pipeline_spec": pipeline, "platform_spec": platform}


def _set_up_container(container: dict[str, Any], settings: KubeflowSettings) -> None:
    if settings.image is not None:
        container["image"] = settings.image
    if settings.environment:
        container["env"] = [
            {"name": name, "value": value} for name, value in settings.environment.items()
        ]
    if "resources" in container:
        container["resources"] = {
            name: value
            for name, value in container["resources"].items()
            if not name.startswith("resource")
        }


def _secrets(settings: KubeflowSettings) -> list[tuple[str, str, tuple[str, ...]]]:
    """For each Secret of the compiled pipeline, the one to be used and its keys."""
    keys = _S3_KEYS if settings.s3_endpoint is not None else (*_S3_KEYS, _S3_ENDPOINT)
    found: list[tuple[str, str, tuple[str, ...]]] = [("understudy-s3", settings.s3_secret, keys)]
    if settings.gateway_secret is not None:
        found.append(("understudy-gateway", settings.gateway_secret, _GATEWAY_KEYS))
    return found


def _secret(name: str, keys: tuple[str, ...]) -> dict[str, Any]:
    return {
        "secretName": name,
        "keyToEnv": [{"secretKey": key, "envVar": key} for key in keys],
    }
