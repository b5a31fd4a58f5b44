"""The documentation is complete and true: what can be set, met or seen is written down, and what
is written down runs."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
import yaml

from gateway import cli, configuration, errors, settings
from gateway.observability import semconv
from gateway.observability.metrics import prometheus_name
from gateway.profile import Profile
from tests.support.inprocess import InProcessGateway
from tests.support.upstream import FakeVllm

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [README, ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]
EXAMPLE_FOLDER = "/etc/understudy"  # where the example configuration has its files


def text_of(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def code_block(text: str, language: str) -> str:
    """The first fenced block of this language."""
    found = re.search(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert found, f"no block of {language}"
    return found[1]


def table_row(text: str, first_cell: str) -> str:
    """The row of a table that begins with this, in backticks."""
    start = f"| `{first_cell}` |"
    rows = [line for line in text.splitlines() if line.startswith(start)]
    assert len(rows) == 1, f"{len(rows)} rows begin with {start}"
    return rows[0]


# ------------------------------------------------------------------------------------- settings


SECTIONS: dict[str, type[settings.Section]] = {
    "": settings.Settings,
    "server.": settings.ServerSettings,
    "models[].": settings.ModelSettings,
    "models[].routing.": settings.ModelRoutingSettings,
    "models[].backends[].": settings.BackendSettings,
    "models[].backends[].timeouts.": settings.BackendTimeoutSettings,
    "kserve.": settings.KServeSettings,
    "routing.": settings.RoutingSettings,
    "timeouts.": settings.TimeoutSettings,
    "identity.": settings.IdentitySettings,
    "identity.api_keys.": settings.ApiKeySettings,
    "identity.oidc.": settings.OidcSettings,
    "identity.kubernetes.": settings.KubernetesSettings,
    "identity.upstream_header.": settings.UpstreamHeaderSettings,
    "limits.": settings.LimitSettings,
    "database.": settings.DatabaseSettings,
    "objects.": settings.ObjectSettings,
    "vectors.": settings.VectorSettings,
    "documents.": settings.DocumentSettings,
    "embedding.": settings.EmbeddingSettings,
    "ingestion.": settings.IngestionSettings,
    "search.": settings.SearchSettings,
    "responses.": settings.ResponseSettings,
    "batches.": settings.BatchSettings,
    "moderation.": settings.ModerationSettings,
    "moderation.models[].": settings.GuardModelSettings,
    "moderation.detectors[].": settings.DetectorSettings,
    "tools.": settings.ToolSettings,
    "tools.connectors[].": settings.ConnectorSettings,
    "urls.": settings.UrlSettings,
    "web_search.": settings.WebSearchSettings,
    "retention.": settings.RetentionSettings,
    "telemetry.": settings.TelemetrySettings,
}
SETTINGS = {
    prefix + field.name: field
    for prefix, section in SECTIONS.items()
    for field in msgspec.structs.fields(section)
    if f"{prefix}{field.name}." not in SECTIONS
}


def test_no_class_of_settings_is_overlooked():
    """The tests below go through every class of settings that there is."""
    classes = {
        one
        for _, one in inspect.getmembers(settings, inspect.isclass)
        if issubclass(one, settings.Section) and one is not settings.Section
    }
    assert set(SECTIONS.values()) == classes


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_documented(name: str):
    """A row of docs/configuration.md names the setting, with its default and its variable."""
    row = table_row(text_of("configuration.md"), name)
    field = SETTINGS[name]
    if field.required:
        assert "| required |" in row
    else:
        default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
        assert f"| `{json.dumps(default)}` |" in row
    if "[]" not in name and name != "models":  # models has its variable in words
        variable = configuration.ENVIRONMENT_PREFIX + name.replace(".", "__").upper()
        assert f"| `{variable}` |" in row


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The example configuration, with its files in a folder of the test."""
    text = code_block(text_of("configuration.md"), "yaml")
    for name in re.findall(rf"{EXAMPLE_FOLDER}/([\w.-]+)", text):
        (tmp_path / name).touch()
    file = tmp_path / "understudy.yaml"
    file.write_text(text.replace(EXAMPLE_FOLDER, str(tmp_path)), encoding="utf-8")
    return file


def test_the_example_configuration_loads(example: Path):
    """It is valid, and its variables are read."""
    needed = re.findall(r"\$\{(\w+)\}", example.read_text(encoding="utf-8"))
    loaded = configuration.load_settings(example, dict.fromkeys(needed, "from-the-environment"))
    assert loaded.models[0].backends[1].api_key == "from-the-environment"
    assert loaded.telemetry.service_name == "understudy"


def test_the_example_configuration_has_every_setting(example: Path):
    """Every key of every class stands in it somewhere."""
    keys: set[str] = set()

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            keys.update(value)
            value = list(value.values())
        for item in value if isinstance(value, list) else ():
            collect(item)

    collect(yaml.safe_load(example.read_text(encoding="utf-8")))
    assert {field.name for field in SETTINGS.values()} <= keys


@pytest.mark.parametrize("name", cli.main.commands)
def test_every_command_and_option_is_documented(name: str):
    """docs/configuration.md has a heading for the command and a row for each option."""
    text = text_of("configuration.md")
    assert f"### understudy {name}\n" in text
    for parameter in cli.main.commands[name].params:
        if isinstance(parameter, click.Argument):
            assert f"`{parameter.metavar}`" in text
            continue
        rows = [line for line in text.splitlines() if line.startswith(f"| `{parameter.opts[0]}")]
        assert rows, parameter.opts


# --------------------------------------------------------------------------------------- errors

ERRORS = [
    one
    for _, one in inspect.getmembers(errors, inspect.isclass)
    if issubclass(one, errors.GatewayError)
]


def codes_in_source() -> dict[str, str]:
    """Every text that becomes an error's `code`, by keyword or by a variable, and where."""
    found: dict[str, str] = {}
    for folder in ("gateway", "adapters"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                match node:
                    case ast.keyword(arg="code", value=value):
                        pass
                    case ast.Assign(targets=[ast.Name(id="code")], value=value):
                        pass
                    case _:
                        continue
                place = f"{file.relative_to(ROOT)}:{value.lineno}"
                found |= dict.fromkeys(outcomes(value), place)
    return found


def outcomes(value: ast.expr) -> Iterator[str]:
    """The texts that an expression may come to."""
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        yield value.value
    elif isinstance(value, ast.IfExp):
        yield from outcomes(value.body)
        yield from outcomes(value.orelse)


def error_rows() -> list[list[str]]:
    """The cells of the table of errors: status, type, code."""
    rows = re.findall(
        r"^\| (\d{3}) \| `(\w+)` \| (`\w+`|null) \|", text_of("errors.md"), re.MULTILINE
    )
    return [[status, kind, code.strip("`")] for status, kind, code in rows]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_error_is_documented(error: type[errors.GatewayError]):
    """docs/errors.md has a row with the class's status and type, and its code where it has one."""
    codes = {row[2] for row in error_rows() if row[:2] == [str(error.status), error.type]}
    assert codes
    assert error.default_code in {None, *codes}


CODES = codes_in_source()


@pytest.mark.parametrize("code", CODES)
def test_every_error_code_is_documented(code: str):
    """docs/errors.md has a row for every code that the source gives."""
    assert code in {row[2] for row in error_rows()}, CODES[code]


def test_no_error_code_is_documented_that_does_not_exist():
    """A code that the source gives no more is gone from docs/errors.md."""
    defaults = {error.default_code for error in ERRORS}
    assert {row[2] for row in error_rows()} <= {*CODES, *defaults, "null"}


# ------------------------------------------------------------------------------------ telemetry

NAMES = {
    name: value
    for name, value in vars(semconv).items()
    if name.isupper() and isinstance(value, str)
}
METRICS = {name: value for name, value in NAMES.items() if name.startswith("M_")}
BUCKETS = {
    name: value
    for name, value in vars(semconv).items()
    if name.isupper() and isinstance(value, tuple)
}


@pytest.mark.parametrize("name", NAMES)
def test_every_telemetry_name_is_documented(name: str):
    """docs/observability.md has every attribute, event and metric."""
    assert f"`{NAMES[name]}`" in text_of("observability.md")


def test_no_telemetry_name_is_documented_that_does_not_exist():
    """A name of ours that is emitted no more is gone from docs/observability.md."""
    named = re.findall(
        r"`((?:http|url|server|gen_ai|openai|understudy|mcp|rpc|network)\.[\w.-]+)`",
        text_of("observability.md"),
    )
    settings_too = {*NAMES.values(), *SETTINGS}
    assert {name for name in named if name not in settings_too} == set()


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_has_its_prometheus_name_beside_it(name: str):
    """A row of docs/observability.md has both names of the metric."""
    text = text_of("observability.md")
    rows = [line for line in text.splitlines() if line.startswith(f"| `{METRICS[name]}` | `")]
    [row] = rows
    unit = "s" if "| s, " in row else ""
    total = "_total" if "| counter |" in row else ""
    assert f"| `{prometheus_name(METRICS[name], unit)}{total}` |" in row


@pytest.mark.parametrize("name", BUCKETS)
def test_the_buckets_are_as_documented(name: str):
    """docs/observability.md lists the bounds that the histograms have."""
    assert f"| {', '.join(f'{bound:.10g}' for bound in BUCKETS[name])} |" in text_of(
        "observability.md"
    )


@cache
def strings_in(folder: str) -> set[str]:
    """Every string in the source of a folder."""
    return {
        node.value
        for file in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_every_otel_variable_that_the_source_reads_is_documented():
    """docs/observability.md has each `OTEL_*` variable that is named in the source."""
    text = text_of("observability.md")
    read = {one for one in strings_in("gateway") if re.fullmatch(r"OTEL_[A-Z_]+[A-Z]", one)}
    assert read
    assert {one for one in read if f"`{one}`" not in text} == set()


# --------------------------------------------------------------------------------- README, links


def make_targets() -> list[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE)


@pytest.mark.parametrize("target", make_targets())
def test_every_make_target_is_in_the_readme(target: str):
    """README.md names every target that `make help` lists."""
    assert f"`make {target}`" in README.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_resolves(page: Path):
    """A link to a file leads to one, and one to a heading leads to a heading."""
    text = re.sub(
        r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.is_file(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {slug(heading) for heading in headings}, link


def slug(heading: str) -> str:
    """A heading's anchor."""
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


def test_every_page_is_in_the_navigation():
    """mkdocs.yml lists every page of docs/."""
    listed = set(
        re.findall(r"^  - .+: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    )
    assert listed == {page.name for page in DOCS.glob("*.md")}


def test_every_field_of_the_profiles_has_a_row():
    """docs/profiles.md has a row for each difference between OpenAI and LlamaStack."""
    rows = re.findall(r"^\| (?!What|---)", (DOCS / "profiles.md").read_text(), re.MULTILINE)
    assert len(rows) == len(msgspec.structs.fields(Profile))


@pytest.mark.anyio
async def test_the_python_of_the_readme_runs():
    """README.md's Python, with the address of a gateway, lists the models and streams an answer."""
    code = code_block(README.read_text(encoding="utf-8"), "python")
    model = re.search(r'model="([^"]+)"', code)
    address = re.search(r'base_url="([^"]+)"', code)
    assert model
    assert address
    assert address[1] == f"http://127.0.0.1:{settings.ServerSettings().port}/v1"
    async with (
        FakeVllm([model[1]], reply="It is Paris.") as upstream,
        InProcessGateway(discover=[upstream.url], models=[model[1]]) as gateway,
    ):
        program = compile(code.replace(address[1], gateway.base_url), "README.md", "exec")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            await asyncio.to_thread(exec, program, {})
    assert printed.getvalue() == f"{model[1]}\nIt is Paris."


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_in_the_docs_is_python(page: Path):
    """Every block of Python compiles."""
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        ast.parse(block)
