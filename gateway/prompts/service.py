"""Prompts: texts with variables, in versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.database.engine import Database
from gateway.database.identifiers import long_id, sequence
from gateway.database.tables import PromptRow, PromptVersionRow
from gateway.errors import InvalidRequest, NotFound
from gateway.identity.principal import Principal
from gateway.prompts.repository import PromptRepository
from gateway.prompts.schemas import (
    CreatePrompt,
    PromptList,
    PromptObject,
    RenderedPrompt,
    SetDefaultVersion,
    UpdatePrompt,
)
from gateway.prompts.template import fill, names_in
from gateway.vector_stores.properties import check_text

__all__ = ["PromptService"]

MAX_CHARACTERS = 1024 * 1024
"""Of one prompt's text."""
MAX_VERSIONS_KEPT = 10_000
MAX_CHARACTERS_KEPT = 64 * 1024 * 1024
"""Of all prompts of a project with all their versions: its lists have no pages."""


class PromptService:
    """LlamaStack's Prompts API, and prompts filled in for responses."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self, principal: Principal) -> PromptList:
        """The default version of each."""
        async with self._database.read() as session:
            rows = await PromptRepository(session).defaults(principal.project)
        return PromptList(data=[_shown(row, row.version) for row in rows])

    async def create(self, principal: Principal, wanted: CreatePrompt) -> PromptObject:
        variables = _checked(wanted.prompt, wanted.variables)
        prompt = PromptRow(
            id=long_id("pmpt_"),
            project=principal.project,
            sequence=sequence(),
            latest_version=1,
            default_version=1,
        )
        async with self._database.begin() as session:
            prompts = PromptRepository(session)
            await _check_room(prompts, principal.project, wanted.prompt)
            prompts.add(prompt)
            await session.flush()
            row = _version(prompt, wanted.prompt, variables)
            prompts.add(row)
        return _shown(row, 1)

    async def retrieve(
        self, principal: Principal, prompt_id: str, version: int | None
    ) -> PromptObject:
        """The default version where none is named. Raises ``NotFound``, as the others do."""
        async with self._database.read() as session:
            prompts = PromptRepository(session)
            prompt = await _found(prompts, principal.project, prompt_id)
            row = await _found_version(prompts, prompt, version)
        return _shown(row, prompt.default_version)

    async def versions(self, principal: Principal, prompt_id: str) -> PromptList:
        async with self._database.read() as session:
            prompts = PromptRepository(session)
            prompt = await _found(prompts, principal.project, prompt_id)
            rows = await prompts.versions(principal.project, prompt_id)
        return PromptList(data=[_shown(row, prompt.default_version) for row in rows])

    async def update(
        self, principal: Principal, prompt_id: str, wanted: UpdatePrompt
    ) -> PromptObject:
        """A new version. Raises ``InvalidRequest`` unless the caller knows the newest one."""
        variables = _checked(wanted.prompt, wanted.variables)
        async with self._database.begin() as session:
            prompts = PromptRepository(session)
            prompt = await _found(prompts, principal.project, prompt_id, hold=True)
            if wanted.version != prompt.latest_version:
                raise InvalidRequest(
                    f"'{wanted.version}' is not the latest prompt version for prompt_id="
                    f"'{prompt_id}'. Use the latest version '{prompt.latest_version}' in request.",
                    param="version",
                    code="invalid_value",
                )
            await _check_room(prompts, principal.project, wanted.prompt)
            prompt.latest_version += 1
            if wanted.set_as_default:
                prompt.default_version = prompt.latest_version
            row = _version(prompt, wanted.prompt, variables)
            prompts.add(row)
        return _shown(row, prompt.default_version)

    async def set_default_version(
        self, principal: Principal, prompt_id: str, wanted: SetDefaultVersion
    ) -> PromptObject:
        async with self._database.begin() as session:
            prompts = PromptRepository(session)
            prompt = await _found(prompts, principal.project, prompt_id, hold=True)
            row = await _found_version(prompts, prompt, wanted.version)
            prompt.default_version = wanted.version
        return _shown(row, wanted.version)

    async def delete(self, principal: Principal, prompt_id: str) -> None:
        """With all its versions, for good."""
        async with self._database.begin() as session:
            unknown = "\x00" in prompt_id
            if unknown or not await PromptRepository(session).delete(principal.project, prompt_id):
                raise _unknown(prompt_id)

    async def render(
        self,
        principal: Principal,
        prompt_id: str,
        version: str | None,
        variables: Mapping[str, Any],
    ) -> RenderedPrompt:
        """The prompt that a response's ``prompt`` names, with its variables filled in.

        Raises ``NotFound`` and ``InvalidRequest`` whose ``param`` is a field of ``prompt``.
        """
        async with self._database.read() as session:
            prompts = PromptRepository(session)
            prompt = await _found(prompts, principal.project, prompt_id, param="prompt.id")
            number = prompt.default_version if version is None else _number(version)
            row = await _found_version(prompts, prompt, number, param="prompt.version")
        text, parts = fill(row.prompt, row.variables, variables, "prompt.variables")
        return RenderedPrompt(prompt_id=prompt_id, version=row.version, text=text, parts=parts)


def _checked(text: str, variables: list[str] | None) -> list[str]:
    """The variables, once the text is found to be right with them."""
    check_text(text, "prompt")
    if len(text) > MAX_CHARACTERS:
        raise InvalidRequest(
            f"Invalid 'prompt': string too long. Expected a string with maximum length "
            f"{MAX_CHARACTERS}, but got a string with length {len(text)} instead.",
            param="prompt",
            code="string_above_max_length",
        )
    named = names_in(text)
    if variables is None:
        return named
    if undeclared := sorted(set(named) - set(variables)):
        raise InvalidRequest(
            f"Prompt contains undeclared variables: {', '.join(undeclared)[:1000]}",
            param="variables",
            code="invalid_value",
        )
    return list(dict.fromkeys(variables))


async def _check_room(prompts: PromptRepository, project: str, text: str) -> None:
    count, characters = await prompts.kept(project)
    if count >= MAX_VERSIONS_KEPT or characters + len(text) > MAX_CHARACTERS_KEPT:
        raise InvalidRequest(
            f"There are too many prompts. All versions together may be {MAX_VERSIONS_KEPT}, with "
            f"{MAX_CHARACTERS_KEPT} characters.",
            param="prompt",
            code="too_many_prompts",
        )


async def _found(
    prompts: PromptRepository,
    project: str,
    prompt_id: str,
    *,
    hold: bool = False,
    param: str = "prompt_id",
) -> PromptRow:
    row = None
    if "\x00" not in prompt_id:  # which PostgreSQL can't even look for
        row = await prompts.find(project, prompt_id, hold=hold)
    if row is None:
        raise _unknown(prompt_id, param)
    return row


async def _found_version(
    prompts: PromptRepository, prompt: PromptRow, version: int | None, param: str = "version"
) -> PromptVersionRow:
    number = prompt.default_version if version is None else version
    row = None
    if 1 <= number <= prompt.latest_version:
        row = await prompts.version(prompt.project, prompt.id, number)
    if row is None:
        raise NotFound(f"Prompt '{prompt.id}' has no version '{number}'.", param=param)
    return row


def _number(version: str) -> int:
    """0, which is no version, for what isn't one."""
    return int(version) if version.isascii() and version.isdigit() and len(version) < 10 else 0


def _version(prompt: PromptRow, text: str, variables: list[str]) -> PromptVersionRow:
    return PromptVersionRow(
        prompt_id=prompt.id,
        version=prompt.latest_version,
        project=prompt.project,
        sequence=sequence(),
        prompt=text,
        variables=variables,
    )


def _shown(row: PromptVersionRow, default: int) -> PromptObject:
    return PromptObject(
        prompt=row.prompt,
        version=row.version,
        prompt_id=row.prompt_id,
        variables=row.variables,
        is_default=row.version == default,
    )


def _unknown(prompt_id: str, param: str = "prompt_id") -> NotFound:
    return NotFound(f"Prompt '{prompt_id[:100]}' not found.", param=param)
