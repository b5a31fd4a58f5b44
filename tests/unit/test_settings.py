"""Settings come from defaults, a file and the environment; what is wrong is named by its key."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli import main
from gateway.configuration import load_settings
from gateway.settings import BackendSettings, Settings, SettingsError

MODEL = "models: [{id: granite, backends: [{url: 'http://vllm:8000/v1'%s}]}]"


@pytest.fixture
def config(tmp_path: Path):
    def write(text: str) -> Path:
        file = tmp_path / "understudy.yaml"
        file.write_text(text)
        return file

    return write


def test_nothing_needs_to_be_set():
    """The defaults are those of the documentation."""
    settings = load_settings(None, {})
    assert settings == Settings()
    assert (settings.server.host, settings.server.port, settings.server.workers) == (
        "127.0.0.1",
        8321,
        1,
    )


def test_a_file_is_read(config):
    """Sections, lists and single values."""
    file = config(
        "server: {port: 9000, management_port: 9001}\n"
        "discover: ['http://a:1/v1', {url: 'http://b:2/v1', api_key: k}]\n" + MODEL % ", weight: 3"
    )
    settings = load_settings(file, {})
    assert (settings.server.port, settings.server.management_port) == (9000, 9001)
    assert settings.discover == [
        "http://a:1/v1",
        BackendSettings(url="http://b:2/v1", api_key="k"),
    ]
    assert settings.models[0].backends[0].weight == 3


def test_an_empty_file_is_fine(config):
    """And so is one of comments only."""
    assert load_settings(config("# nothing yet\n"), {}) == Settings()


def test_the_environment_wins_over_the_file(config):
    """Scalars of any type, lists as YAML, and sections that the file doesn't have."""
    settings = load_settings(
        config("server: {port: 9000, host: 0.0.0.0}\n"),
        {
            "UNDERSTUDY_SERVER__PORT": "9100",
            "UNDERSTUDY_TELEMETRY__ACCESS_LOG": "true",
            "UNDERSTUDY_DISCOVER": "['http://a:1/v1']",
            "UNDERSTUDY_TIMEOUTS__CONNECT": "2",
            "UNDERSTUDY_DISCOVER_INTERVAL_SECONDS": "0.5",
        },
    )
    assert (settings.server.port, settings.server.host) == (9100, "0.0.0.0")
    assert settings.telemetry.access_log is True
    assert settings.discover == ["http://a:1/v1"]
    assert settings.timeouts.connect == 2
    assert settings.discover_interval_seconds == 0.5


def test_a_section_in_the_environment_is_yaml():
    """As a whole."""
    settings = load_settings(None, {"UNDERSTUDY_SERVER": "{port: 9000}"})
    assert settings.server.port == 9000


def test_variables_of_others_are_left_alone():
    """A prefix may be shared with what Kubernetes makes up for services."""
    environment = {
        "UNDERSTUDY_PORT": "tcp://10.0.0.1:8321",
        "UNDERSTUDY_SERVICE_HOST": "10.0.0.1",
        "UNDERSTUDY_PORT_8321_TCP_ADDR": "10.0.0.1",
        "UNDERSTUDY_CONFIG": "/etc/understudy.yaml",
    }
    assert load_settings(None, environment) == Settings()


def test_placeholders_are_replaced(config):
    """`${NAME}`, `${NAME:-default}`, several in a value, and an empty default."""
    file = config(
        "discover: [{url: 'http://${HOST}:${PORT:-8000}/v1', api_key: '${TOKEN:-}'}]\n"
        "server: {port: '${GATEWAY_PORT:-9000}'}\n"
    )
    settings = load_settings(file, {"HOST": "vllm", "TOKEN": "t"})
    assert settings.discover == [BackendSettings(url="http://vllm:8000/v1", api_key="t")]
    assert settings.server.port == 9000


def test_a_placeholder_s_value_is_not_read_as_yaml(config):
    """A token that looks like YAML stays the token."""
    settings = load_settings(config(MODEL % ", api_key: '${T}'"), {"T": "a: [b] # c"})
    assert settings.models[0].backends[0].api_key == "a: [b] # c"


WRONG = {
    "misspelt section": ("sever: {port: 1}", "sever"),
    "misspelt key": ("server: {prot: 9000}", "server: "),
    "misspelt key in a list": (MODEL % ", wieght: 1", "models.0.backends.0"),
    "text for a number": ("server: {port: many}", "server.port"),
    "port out of range": ("server: {port: 70000}", "server.port"),
    "negative": ("timeouts: {connect: -1}", "timeouts.connect"),
    "zero workers": ("server: {workers: 0}", "server.workers"),
    "unknown choice": ("telemetry: {log_level: loud}", "telemetry.log_level"),
    "a section that is none": ("server: 5", "server"),
    "no backends": ("models: [{id: a, backends: []}]", "models.0.backends"),
    "model without id": ("models: [{backends: [{url: 'http://a'}]}]", "models.0"),
    "not a url": ("discover: ['vllm:8000']", "discover.0.url"),
    "another scheme": ("discover: ['ftp://vllm']", "discover.0.url"),
    "both keys": (
        MODEL % ", api_key: a, api_key_file: /dev/null",
        "models.0.backends.0: give api_key or api_key_file",
    ),
    "key with a line's end": (MODEL % ', api_key: "a\\n"', "models.0.backends.0.api_key"),
    "certificate without key": (MODEL % ", client_cert: /dev/null", "models.0.backends.0"),
    "no such file": (MODEL % ", ca_file: /nowhere/ca.pem", "models.0.backends.0.ca_file"),
    "name given twice": (
        "models: [{id: a, backends: [&b {url: http://a}]}, {id: c, aliases: [a], backends: [*b]}]",
        "models.1",
    ),
    "one port for two": (
        "server: {port: 9000, management_port: 9000}",
        "server.management_port",
    ),
    "another database": ("database: {url: 'mysql://db/x'}", "database.url"),
    "a driver that blocks": ("database: {url: 'postgresql://db/x'}", "database.url"),
    "minio without keys": ("objects: {kind: minio, endpoint: 'm:9000'}", "objects.access_key"),
    "minio with a scheme": (
        "objects: {kind: minio, endpoint: 'http://m', access_key: a, secret_key: b}",
        "objects.endpoint",
    ),
    "docling-serve nowhere": ("documents: {converter: docling-serve}", "documents.url"),
    "milvus without a scheme": ("vectors: {uri: 'milvus:19530'}", "http://milvus:19530"),
    "milvus by another scheme": ("vectors: {uri: 'tcp://milvus:19530'}", "vectors.uri"),
    "milvus's certificate alone": ("vectors: {client_cert: /dev/null}", "vectors: client_cert"),
    "milvus's client without CA": (
        "vectors: {client_cert: /dev/null, client_key: /dev/null}",
        "vectors.ca_file",
    ),
    "no CA of the database": ("database: {ca_file: /nowhere/ca.pem}", "database.ca_file"),
    "a list at the top": ("[]", "sections such as `server:`"),
    "not yaml": ("server: {", "not valid YAML"),
    "unset variable": ("server: {host: '${NOWHERE}'}", "server.host: the variable NOWHERE"),
    "a detector without a server": (
        "moderation: {detectors: [{name: hap, url: hap:8080}]}",
        "moderation.detectors.0.url",
    ),
    "a detector with a model's name": (
        "moderation: {models: [{model: a}], detectors: [{name: a, url: 'http://a'}]}",
        "moderation.detectors.0.name",
    ),
    "a detector that no header can name": (
        "moderation: {detectors: [{name: größe, url: 'http://a'}]}",
        "moderation.detectors.0",
    ),
    "a detector's file": (
        "moderation: {detectors: [{name: a, url: 'https://a', ca_file: /nowhere/ca.pem}]}",
        "moderation.detectors.0.ca_file",
    ),
    "a category that OpenAI doesn't have": (
        "moderation: {detectors: [{name: a, url: 'http://a', categories: {x: [bad]}}]}",
        "moderation.detectors",
    ),
    "a guard model twice": (
        "moderation: {models: [{model: a}, {model: a}]}",
        "moderation.models",
    ),
}


WRONG_TOOLS = {
    "tools: {allowed_hosts: ['http://a.example']}": "tools.allowed_hosts",
    "tools: {allowed_hosts: [a*.example]}": "tools.allowed_hosts",
    "urls: {allowed_hosts: [0x7f.1]}": "urls.allowed_hosts",
    "urls: {ca_file: /no/such/file}": "urls.ca_file",
    "tools: {connectors: [{id: a}]}": "tools.connectors.0",
    "tools: {connectors: [{id: 'a b', url: 'http://a'}]}": "tools.connectors.0.id",
    "tools: {connectors: [{id: a, url: a}]}": "tools.connectors.0.url",
    "tools: {connectors: [{id: a, url: 'http://u:p@a'}]}": "tools.connectors.0.url",
    "tools: {connectors: [{id: a, url: 'http://a'}, {id: a, url: 'http://b'}]}": "given twice",
    "tools: {connectors: [{id: a, url: 'http://a', headers: {x: ä}}]}": "0.headers",
    "tools: {connectors: [{id: a, url: 'http://a', authorization: ä}]}": "0.authorization",
    "tools: {connectors: [{id: a, url: 'http://a', authorization_file: /none}]}": "no such file",
    "tools: {connectors: [{id: a, url: 'http://a', authorization: b, authorization_file: c}]}": (
        "not both"
    ),
    "web_search: {kind: searxng}": "web_search.url",
    "web_search: {kind: brave}": "web_search.api_key",
    "web_search: {kind: tavily, api_key: a, api_key_file: b}": "not both",
    "web_search: {kind: tavily, api_key: ä}": "web_search.api_key",
    "web_search: {kind: searxng, url: a}": "web_search.url",
    "web_search: {max_results: 21}": "web_search.max_results",
}


@pytest.mark.parametrize("text", WRONG_TOOLS)
def test_what_is_wrong_with_tools_is_named(config, text):
    """By section and key, as everywhere."""
    with pytest.raises(SettingsError) as raised:
        load_settings(config(text), {})
    assert WRONG_TOOLS[text] in str(raised.value)


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(config, name):
    """By section and key, in one sentence."""
    text, named = WRONG[name]
    with pytest.raises(SettingsError) as raised:
        load_settings(config(text), {})
    assert named in str(raised.value)


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"UNDERSTUDY_SERVER__PORT": "many"}, "server.port"),
        ({"UNDERSTUDY_SERVER__PROT": "1"}, "server"),
        ({"UNDERSTUDY_SERVER__PORT": "{"}, "UNDERSTUDY_SERVER__PORT"),
        ({"UNDERSTUDY_DATA_DIR__X": "1"}, "data_dir"),
    ],
)
def test_what_is_wrong_in_the_environment_is_named(environment, named):
    """The same."""
    with pytest.raises(SettingsError) as raised:
        load_settings(None, environment)
    assert named in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    """With the reason."""
    with pytest.raises(SettingsError) as raised:
        load_settings(tmp_path / "gone.yaml", {})
    assert "gone.yaml" in str(raised.value)


@pytest.mark.parametrize("header", ["Host", "content-length", "Transfer-Encoding", "traceparent"])
def test_a_header_that_frames_the_message_cannot_be_forwarded(config, header):
    """It belongs to one connection, or is the gateway's own."""
    with pytest.raises(SettingsError) as raised:
        load_settings(config(MODEL % f", forward_headers: [{header}]"), {})
    assert "forward_headers" in str(raised.value)


def test_a_secret_is_not_in_the_complaint(config):
    """About another key beside it."""
    with pytest.raises(SettingsError) as raised:
        load_settings(config(MODEL % ", api_key: sk-secret, weight: x"), {})
    assert "sk-secret" not in str(raised.value)


def test_the_command_line_says_it_in_one_line(config):
    """No traceback, exit status 1."""
    result = CliRunner().invoke(main, ["serve", "--config", str(config("server: {port: x}"))])
    assert result.exit_code == 1
    assert result.output.startswith("Error: server.port: ")
    assert result.output.count("\n") == 1


def test_without_a_model_server_it_says_how_to_give_one(monkeypatch):
    """The first thing that a new user meets."""
    result = CliRunner().invoke(main, ["serve"], env={"UNDERSTUDY_CONFIG": None})
    assert result.exit_code == 1
    assert "--vllm URL" in result.output
