"""Prompts as a service, on each database, and how their variables are filled in."""

from __future__ import annotations

import asyncio
import time

import pytest
from sqlalchemy import select

from gateway.database.tables import PromptRow, PromptVersionRow
from gateway.errors import InvalidRequest, NotFound
from gateway.identity.principal import Principal
from gateway.prompts import service as prompts_module
from gateway.prompts.schemas import CreatePrompt, PromptObject, SetDefaultVersion, UpdatePrompt
from gateway.prompts.service import PromptService
from gateway.prompts.template import fill, names_in

pytestmark = pytest.mark.anyio

ME = Principal()
OTHER = Principal(project="other")
IMAGE = {"type": "input_image", "image_url": "https://example.com/a.png"}
FILE = {"type": "input_file", "file_id": "file-1"}


@pytest.fixture
def service(database) -> PromptService:
    return PromptService(database)


async def made(service: PromptService, text: str = "Hi {{ name }}", **more) -> PromptObject:
    return await service.create(ME, CreatePrompt(prompt=text, **more))


async def test_versions_count_up(service):
    """The newest is the default unless said otherwise; each stays as it was."""
    first = await made(service)
    assert (first.version, first.is_default, first.variables) == (1, True, ["name"])
    second = await service.update(ME, first.prompt_id, UpdatePrompt(prompt="b", version=1))
    assert (second.version, second.is_default) == (2, True)
    third = await service.update(
        ME, first.prompt_id, UpdatePrompt(prompt="c", version=2, set_as_default=False)
    )
    assert (third.version, third.is_default) == (3, False)
    versions = (await service.versions(ME, first.prompt_id)).data
    assert [(one.prompt, one.is_default) for one in versions] == [
        ("Hi {{ name }}", False),
        ("b", True),
        ("c", False),
    ]
    assert (await service.retrieve(ME, first.prompt_id, None)).prompt == "b"
    assert (await service.retrieve(ME, first.prompt_id, 3)).prompt == "c"


async def test_only_who_knows_the_newest_version_makes_another(service):
    """Of several at once, one does."""
    name = (await made(service)).prompt_id
    outcomes = await asyncio.gather(
        *(service.update(ME, name, UpdatePrompt(prompt="b", version=1)) for _ in range(4)),
        return_exceptions=True,
    )
    assert sum(isinstance(one, PromptObject) for one in outcomes) == 1
    with pytest.raises(InvalidRequest) as caught:
        await service.update(ME, name, UpdatePrompt(prompt="b", version=1))
    assert caught.value.param == "version"
    assert "'2'" in caught.value.message


async def test_the_default_can_be_any_version(service):
    """But not one that isn't there."""
    name = (await made(service)).prompt_id
    await service.update(ME, name, UpdatePrompt(prompt="b", version=1))
    shown = await service.set_default_version(ME, name, SetDefaultVersion(version=1))
    assert (shown.version, shown.is_default) == (1, True)
    with pytest.raises(NotFound):
        await service.set_default_version(ME, name, SetDefaultVersion(version=3))
    assert [one.version for one in (await service.list(ME)).data] == [1]


async def test_the_list_has_the_default_of_each(service):
    """The newest prompt first, and no other project's."""
    for text in ("a", "b"):
        await made(service, text)
    await service.create(OTHER, CreatePrompt(prompt="theirs"))
    assert [one.prompt for one in (await service.list(ME)).data] == ["b", "a"]


async def test_a_deleted_prompt_leaves_nothing(service, database):
    """None of its versions."""
    name = (await made(service)).prompt_id
    await service.update(ME, name, UpdatePrompt(prompt="b", version=1))
    await service.delete(ME, name)
    async with database.read() as session:
        for table in (PromptRow, PromptVersionRow):
            assert (await session.execute(select(table))).first() is None
    with pytest.raises(NotFound):
        await service.delete(ME, name)


async def test_placeholders_must_be_declared(service):
    """Those that aren't are named; what is declared needn't occur."""
    with pytest.raises(InvalidRequest) as caught:
        await made(service, "{{ a }} {{b}}", variables=["a"])
    assert caught.value.param == "variables"
    assert caught.value.message.endswith("variables: b")
    assert (await made(service, "{{ a }}", variables=["a", "c", "a"])).variables == ["a", "c"]


async def test_prompts_are_bounded(service, monkeypatch):
    """A text, and all texts together."""
    with pytest.raises(InvalidRequest):
        await made(service, "x" * (1024 * 1024 + 1))
    with pytest.raises(InvalidRequest):
        await made(service, "a\x00")
    monkeypatch.setattr(prompts_module, "MAX_CHARACTERS_KEPT", 10)
    name = (await made(service, "x" * 9)).prompt_id
    with pytest.raises(InvalidRequest) as caught:
        await service.update(ME, name, UpdatePrompt(prompt="xx", version=1))
    assert caught.value.code == "too_many_prompts"
    await service.create(OTHER, CreatePrompt(prompt="x" * 10))
    monkeypatch.setattr(prompts_module, "MAX_VERSIONS_KEPT", 1)
    with pytest.raises(InvalidRequest):
        await made(service, "")


async def test_a_response_gets_its_prompt_filled_in(service):
    """In the version it names, or the default one."""
    name = (await made(service)).prompt_id
    await service.update(ME, name, UpdatePrompt(prompt="Ho {{ name }}!", version=1))
    rendered = await service.render(ME, name, None, {"name": "Ada"})
    assert (rendered.text, rendered.version, rendered.parts) == ("Ho Ada!", 2, [])
    assert (await service.render(ME, name, "1", {"name": "Ada"})).text == "Hi Ada"


@pytest.mark.parametrize(
    ("principal", "prompt", "version", "variables", "error", "param"),
    [
        (ME, "pmpt_nope", None, {}, NotFound, "prompt.id"),
        (ME, "a\x00", None, {}, NotFound, "prompt.id"),
        (OTHER, None, None, {"name": "a"}, NotFound, "prompt.id"),
        (ME, None, "2", {"name": "a"}, NotFound, "prompt.version"),
        (ME, None, "latest", {"name": "a"}, NotFound, "prompt.version"),
        (ME, None, "9" * 5000, {"name": "a"}, NotFound, "prompt.version"),
        (ME, None, None, {}, InvalidRequest, "prompt.variables.name"),
        (ME, None, None, {"name": None}, InvalidRequest, "prompt.variables.name"),
        (ME, None, None, {"name": 5}, InvalidRequest, "prompt.variables.name"),
        (ME, None, None, {"name": {"type": "x"}}, InvalidRequest, "prompt.variables.name.type"),
        (ME, None, None, {"name": {"type": "input_file"}}, InvalidRequest, None),
        (ME, None, None, {"name": "a", "other": "b"}, InvalidRequest, "prompt.variables.other"),
    ],
)
async def test_what_is_wrong_with_a_prompt_is_named(
    service, principal, prompt, version, variables, error, param
):
    """As a field of the response's request."""
    name = prompt or (await made(service)).prompt_id
    with pytest.raises(error) as caught:
        await service.render(principal, name, version, variables)
    assert type(caught.value) is error
    assert caught.value.param == (param or "prompt.variables.name.file_id")


def test_values_are_never_looked_into():
    """A value that looks like a placeholder stays what it is, and so does one like a pattern."""
    text, _ = fill("{{a}} {{b}}", ["a", "b"], {"a": "{{b}} \\1 \\g<0>", "b": "{{a}}"}, "v")
    assert text == "{{b}} \\1 \\g<0> {{a}}"


def test_images_and_files_stand_beside_the_text():
    """Once each, in the order of the text; text parts stand in it."""
    given = {"f": FILE, "i": IMAGE, "t": {"type": "input_text", "text": "T"}}
    assert fill("{{i}}-{{t}}-{{f}}-{{i}}", ["t", "f", "i"], given, "v") == ("-T--", [IMAGE, FILE])


def test_the_names_in_a_text():
    """Each once; what doesn't look like one is text."""
    assert names_in("{{b}} {{ a }}{{\nb\n}} {c} {{d-e}} {{ }} {{{f}}}") == ["b", "a", "f"]


@pytest.mark.alone
@pytest.mark.parametrize("junk", ["{{" * 500_000, "{{" + " " * 1_000_000, "{{ a" + " " * 1_000_000])
def test_no_text_takes_long(junk):
    """However much it looks like placeholders."""
    began = time.perf_counter()
    assert names_in(junk) == []
    assert time.perf_counter() - began < 1
