"""`make chart`: write the dashboard anew, lint and render the chart for every file of values."""

from __future__ import annotations

import runpy
import sys

from helm_python import chart, helm_sdk_version

from tests.support.chart import CHART, ROOT, VALUES, lint, render_files, values_of

OUTPUT = ROOT / "dist" / "chart"


def main() -> int:
    runpy.run_path(str(ROOT / "helm" / "dashboard.py"), run_name="__main__")
    OUTPUT.mkdir(parents=True, exist_ok=True)
    failed = False
    for name in VALUES:
        for problem in lint(values_of(name)):
            failed = True
            print(f"{name}: {problem}", file=sys.stderr)
        file = OUTPUT / f"{name}.yaml"
        text = "".join(
            f"---\n# {template}\n{rendered}\n"
            for template, rendered in render_files(values_of(name)).items()
            if rendered.strip() and template != "NOTES.txt"
        )
        file.write_text(text, encoding="utf-8")
        print(file.relative_to(ROOT))
    package = chart.package(CHART, destination=OUTPUT)
    print(f"{package.removeprefix(f'{ROOT}/')}, by Helm {helm_sdk_version()}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
