"""What callers were told is done, and whether it is there in the end."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import openai
from openai import AsyncOpenAI

SETTLE_SECONDS = 120.0


@dataclass
class Ledger:
    """Of one project. Only what was acknowledged is in it."""

    project: str
    files: dict[str, bytes] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    stores: set[str] = field(default_factory=set)
    attached: dict[tuple[str, str], str] = field(default_factory=dict)
    """Store and file, and the words by which it is found."""
    responses: dict[str, str] = field(default_factory=dict)
    """By id, the words that its answer has."""
    background: set[str] = field(default_factory=set)
    batches: dict[str, list[str]] = field(default_factory=dict)
    """By id, the words of each line."""

    def counts(self) -> Counter[str]:
        return Counter(
            files=len(self.files),
            deleted=len(self.deleted),
            stores=len(self.stores),
            attached=len(self.attached),
            responses=len(self.responses),
            batches=len(self.batches),
        )


async def check(ledger: Ledger, client: AsyncOpenAI, others: list[Ledger]) -> list[str]:
    """What is wrong, in words; nothing where all is well."""
    wrong: list[str] = []
    deadline = time.monotonic() + SETTLE_SECONDS
    await _files(ledger, client, wrong)
    await _attached(ledger, client, deadline, wrong)
    await _responses(ledger, client, deadline, wrong)
    await _batches(ledger, client, deadline, wrong)
    await _strangers(ledger, client, others, wrong)
    return wrong


async def _files(ledger: Ledger, client: AsyncOpenAI, wrong: list[str]) -> None:
    for id_, data in ledger.files.items():
        try:
            if (await client.files.content(id_)).content != data:
                wrong.append(f"file {id_} has other bytes")
        except openai.APIError as error:
            wrong.append(f"file {id_} is lost: {error}")
    for id_ in ledger.deleted:
        try:
            await client.files.retrieve(id_)
            wrong.append(f"file {id_} is there again")
        except openai.NotFoundError:
            continue


async def _attached(ledger: Ledger, client: AsyncOpenAI, deadline: float, wrong: list[str]) -> None:
    for (store, file), words in ledger.attached.items():
        try:
            shown = await client.vector_stores.files.retrieve(file, vector_store_id=store)
            while shown.status == "in_progress" and time.monotonic() < deadline:
                await asyncio.sleep(0.2)
                shown = await client.vector_stores.files.retrieve(file, vector_store_id=store)
            if shown.status != "completed":
                wrong.append(f"file {file} in {store} is {shown.status}: {shown.last_error}")
                continue
            found = await client.vector_stores.search(store, query=words, max_num_results=3)
            if file not in [one.file_id for one in found.data]:
                wrong.append(f"file {file} in {store} is not found by {words!r}")
        except openai.APIError as error:
            wrong.append(f"file {file} in {store}: {error}")


async def _responses(
    ledger: Ledger, client: AsyncOpenAI, deadline: float, wrong: list[str]
) -> None:
    for id_, words in ledger.responses.items():
        try:
            shown = await client.responses.retrieve(id_)
            while shown.status in ("queued", "in_progress") and time.monotonic() < deadline:
                await asyncio.sleep(0.2)
                shown = await client.responses.retrieve(id_)
            if shown.status != "completed":
                wrong.append(f"response {id_} is {shown.status}: {shown.error}")
            elif words not in shown.output_text:
                wrong.append(f"response {id_} says {shown.output_text!r}, not {words!r}")
        except openai.APIError as error:
            wrong.append(f"response {id_} is lost: {error}")


async def _batches(ledger: Ledger, client: AsyncOpenAI, deadline: float, wrong: list[str]) -> None:
    over = ("completed", "failed", "expired", "cancelled")
    for id_, lines in ledger.batches.items():
        try:
            shown = await client.batches.retrieve(id_)
            while shown.status not in over and time.monotonic() < deadline:
                await asyncio.sleep(0.2)
                shown = await client.batches.retrieve(id_)
            if shown.status != "completed" or shown.output_file_id is None:
                wrong.append(f"batch {id_} is {shown.status}: {shown.request_counts}")
                continue
            output = (await client.files.content(shown.output_file_id)).text.splitlines()
            said = {one["custom_id"]: _said(one) for one in map(json.loads, output)}
            if not all(words in said.get(words, "") for words in lines):
                wrong.append(f"batch {id_} has {len(said)} of {len(lines)} answers")
        except openai.APIError as error:
            wrong.append(f"batch {id_} is lost: {error}")


def _said(line: dict[str, Any]) -> str:
    return str(line["response"]["body"]["choices"][0]["message"]["content"])


async def _strangers(
    ledger: Ledger, client: AsyncOpenAI, others: list[Ledger], wrong: list[str]
) -> None:
    """Nothing of another project can be read or listed."""
    foreign = {id_ for other in others for id_ in (*other.files, *other.stores)}
    listed = {one.id async for one in client.files.list()}
    listed |= {one.id async for one in client.vector_stores.list()}
    wrong += [f"{id_} is shown to {ledger.project}" for id_ in listed & foreign]
    for other in others:
        probes = [
            *((client.files.retrieve, id_) for id_ in [*other.files][:50]),
            *((client.vector_stores.retrieve, id_) for id_ in [*other.stores][:50]),
            *((client.responses.retrieve, id_) for id_ in [*other.responses][:50]),
            *((client.batches.retrieve, id_) for id_ in [*other.batches][:50]),
        ]
        for read, id_ in probes:
            try:
                await read(id_)  # type: ignore[operator]
                wrong.append(f"{ledger.project} can read {id_} of {other.project}")
            except openai.NotFoundError:
                continue
