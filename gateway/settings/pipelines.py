"""Where pipelines run."""

from __future__ import annotations

from msgspec import field

from gateway.settings.section import PositiveFloat, PositiveInt, Section


class KubeflowSettings(Section, frozen=True):
    """Kubeflow Pipelines, for ``understudy ingest --on kubeflow``.

    ``KubeflowSettings(url="https://ds-pipeline-dspa.apps.example.com", image="understudy:0.1.0")``
    """

    url: str | None = None
    """Of its API, without ``/apis``."""
    token: str | None = None
    token_file: str | None = None
    """Read again for each call, since tokens of service accounts are replaced."""
    ca_file: str | None = None
    namespace: str | None = None
    """Of the experiment, where one installation serves several namespaces."""
    experiment: str = "understudy-ingestion"
    """Made when it is missing."""
    pipeline_root: str | None = None
    """Where artifacts go; the installation's own place when left out."""
    service_account: str | None = None
    """Of the run's pods; the installation's own when left out."""
    image: str | None = None
    """The gateway's image, which the run's pods use."""
    gateway_url: str | None = None
    """The gateway's API as the pods reach it, ending in ``/v1``."""
    gateway_secret: str | None = None
    """A Secret with the key ``OPENAI_API_KEY``, where the gateway asks for one."""
    s3_endpoint: str | None = None
    """A URL; ``AWS_S3_ENDPOINT`` of the Secret when left out."""
    s3_region: str | None = None
    s3_secret: str = "understudy-s3"  # noqa: S105  (its name)
    """A Secret with ``AWS_ACCESS_KEY_ID`` and ``AWS_SECRET_ACCESS_KEY``, as OpenShift AI's
    connections are."""
    trusted_ca_config_map: str | None = None
    """Authorities that the pods trust besides the image's own."""
    trusted_ca_key: str = "ca-bundle.crt"
    environment: dict[str, str] = field(default_factory=dict)
    """Of every pod, for settings like ``UNDERSTUDY_DOCUMENTS__CONVERTER``; no place for secrets."""
    parallelism: PositiveInt = 4
    """Turns of the loop that run at once."""
    documents_per_task: PositiveInt = 20
    """In one turn."""
    poll_seconds: PositiveFloat = 5.0
    """Between two looks at a run that is followed."""
