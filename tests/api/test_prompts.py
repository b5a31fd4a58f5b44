"""Prompts over plain HTTP, as LlamaStack's clients of all times ask for them."""

from __future__ import annotations

import pytest

from tests.support.expect import refused
from tests.support.inprocess import InProcessGateway

pytestmark = pytest.mark.anyio

KEYS = {"prompt", "version", "prompt_id", "variables", "is_default"}


@pytest.fixture(scope="module", params=["openai", "llamastack"])
async def gateway(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    async with InProcessGateway(
        data_dir=str(tmp_path_factory.mktemp("prompts")), server={"profile": request.param}
    ) as gateway:
        yield gateway


@pytest.fixture
async def http(gateway: InProcessGateway):
    async with gateway.client() as http:
        yield http


@pytest.mark.parametrize("prefix", ["/v1", "/v1/openai/v1"])
@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_the_whole_life_of_a_prompt(http, prefix, method):
    """Create, update, set the default, list, delete; by PUT today, by POST before 0.5."""
    made = await http.post(f"{prefix}/prompts", json={"prompt": "Hi {{name}}"})
    name = made.json()["prompt_id"]
    path = f"{prefix}/prompts/{name}"
    assert made.json() == {
        "prompt": "Hi {{name}}",
        "version": 1,
        "prompt_id": name,
        "variables": ["name"],
        "is_default": True,
    }
    assert len(name) == len("pmpt_") + 48
    body = {"prompt": "Ho", "version": 1, "variables": [], "set_as_default": False}
    second = await http.request(method, path, json=body)
    assert (second.status_code, second.json()["version"]) == (200, 2)
    assert (await http.get(path)).json() == made.json()
    assert (await http.get(f"{path}?version=2")).json() == second.json()
    chosen = await http.request(method, f"{path}/set-default-version", json={"version": 2})
    assert chosen.json() == {**second.json(), "is_default": True}
    versions = (await http.get(f"{path}/versions")).json()
    assert [one["is_default"] for one in versions["data"]] == [False, True]
    listed = (await http.get(f"{prefix}/prompts")).json()
    assert listed.keys() == {"data"}
    assert [one for one in listed["data"] if one["prompt_id"] == name] == [chosen.json()]
    gone = await http.delete(path)
    assert (gone.status_code, gone.content) == (200, b"")
    assert refused(await http.get(path), 404)["param"] == "prompt_id"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": "{{ a }}", "variables": []}, "variables"),
        ({"prompt": "", "variables": [5]}, "variables[0]"),
        ({"prompt": "x" * (1024 * 1024 + 1)}, "prompt"),
    ],
)
async def test_what_is_wrong_is_named(http, body, param):
    """A placeholder that isn't declared too."""
    assert refused(await http.post("/v1/prompts", json=body), 400)["param"] == param


async def test_a_version_that_is_not_the_newest_is_refused(http):
    """The message says which one is."""
    name = (await http.post("/v1/prompts", json={"prompt": "a"})).json()["prompt_id"]
    error = refused(await http.put(f"/v1/prompts/{name}", json={"prompt": "b", "version": 2}), 400)
    assert error["param"] == "version"
    assert "'1'" in error["message"]
    assert refused(await http.get(f"/v1/prompts/{name}?version=7"), 404)["param"] == "version"
