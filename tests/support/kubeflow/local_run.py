"""Runs the compiled pipeline on this machine with `kfp.local`; in an environment that has KFP.

    python local_run.py pipeline.yaml '{"gateway": …}' FOLDER

`kfp.local` without Docker runs Python components only. The pipeline's tasks are containers whose
program, `understudy`, is installed here, so their commands run as they are once three things are
mended: SubprocessRunner's refusal of containers, the artifacts of containers (which the cluster
takes from where they were to be written), and loops over one of several outputs of a task.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from kfp import components, local
from kfp.local import executor_output_utils, io, subprocess_task_handler

subprocess_task_handler.SubprocessTaskHandler.validate_not_container_component = (
    lambda self, command: None
)
_parent_input = io.IOStore.get_parent_input


def _parent_input_or_output(self: io.IOStore, key: str) -> object:
    try:
        return _parent_input(self, key)
    except ValueError:
        name = key.removeprefix("pipelinechannel--")
        for task, outputs in self._task_output_data.items():
            for output, value in outputs.items():
                if name == f"{task}-{output}":
                    return value
        raise


io.IOStore.get_parent_input = _parent_input_or_output


def _outputs(executor_input: Any, component_spec: Any) -> dict[str, Any]:
    said = executor_output_utils.load_executor_output(executor_input.outputs.output_file)
    for name, artifacts in executor_input.outputs.artifacts.items():
        if name not in said.artifacts:
            said.artifacts[name].CopyFrom(artifacts)
    return executor_output_utils.get_outputs_from_executor_output(
        said, executor_input, component_spec
    )


executor_output_utils.get_outputs_for_task = _outputs


def main(pipeline: str, arguments: str, folder: str) -> None:
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=folder)
    components.load_component_from_file(pipeline)(**json.loads(arguments))


if __name__ == "__main__":
    main(*sys.argv[1:])
