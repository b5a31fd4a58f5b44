"""Starts the pipeline with KFP's own SDK, and prints what it reads of the run; in an environment
that has KFP.

    python sdk_run.py http://127.0.0.1:8888 pipeline.yaml '{"gateway": …}'
"""

from __future__ import annotations

import json
import sys

import kfp


def main(host: str, pipeline: str, arguments: str) -> None:
    client = kfp.Client(host=host)
    client.create_experiment("docs")
    started = client.create_run_from_pipeline_package(
        pipeline, arguments=json.loads(arguments), run_name="by-the-sdk", experiment_name="docs"
    )
    run = client.get_run(started.run_id)
    tasks = [[one.display_name, one.state] for one in run.run_details.task_details]
    print(json.dumps({"state": run.state, "tasks": tasks}))


if __name__ == "__main__":
    main(*sys.argv[1:])
