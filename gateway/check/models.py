"""Model servers: what each says it serves, and whether it does when it is asked for one token."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import httpx
import msgspec
from msgspec import Struct, field

from gateway.check.finding import Outcome, failed, fine, shown, warned
from gateway.check.mending import mend_of
from gateway.check.probe import Probe, closed_after
from gateway.check.systems import Systems
from gateway.errors import GatewayError, InvalidRequest, NotFound
from gateway.ports import ModelServer, ServerKind
from gateway.settings import BackendSettings, ModelSettings, Settings, SettingsError, backend_of

__all__ = ["Answers", "different_dimensions", "look_at", "probes", "single_embedding_model"]

MOST_ASKED = 4
"""Models of one server that are asked for a token; adapters (LoRA) of one base may be hundreds."""

_REFUSALS = (InvalidRequest, NotFound)


class Wanted(Struct, frozen=True, kw_only=True):
    """A model that the configuration expects on a server."""

    setting: str
    name: str
    id: str
    kind: str | None


class Answer(Struct, frozen=True, kw_only=True):
    """What one server said of itself."""

    kind: ServerKind
    names: Sequence[str]
    dimensions: dict[str, int]


class Answers(Struct, kw_only=True):
    """What the servers said, for looks at settings that name models."""

    servers: dict[str, Answer] = field(default_factory=dict)
    """By the setting that names the server: ``discover.0``, ``models.0.backends.1``."""
    outstanding: int = 0
    complete: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when every server was asked, in vain or not."""


def probes(systems: Systems, answers: Answers) -> list[Probe]:
    """One for each server, whatever number of settings name it."""
    servers = _servers(systems.settings)
    answers.outstanding = len(servers)
    if not servers:
        answers.complete.set()
        if systems.settings.kserve.enabled:
            return []
        mend = "Give --vllm URL, or `discover:` or `models:` in --config FILE."

        async def none() -> Outcome:
            return failed("there is no model server", mend)

        return [Probe(system="model server", address="-", look=none)]
    return [
        Probe(
            system="model server",
            address=shown(backend.url),
            look=_Look(systems, backend, settings, wanted, answers),
            patience=2.0,
        )
        for backend, (settings, wanted) in servers.items()
    ]


async def look_at(systems: Systems, model: ModelSettings, setting: str) -> list[Outcome]:
    """A model that the configuration doesn't name, at its one backend."""
    backend = model.backends[0]
    wanted = Wanted(setting=setting, name=backend.model or model.id, id=model.id, kind=model.kind)
    look = _Look(systems, _server(backend), [setting], [wanted], Answers(outstanding=1))
    try:
        found = await look()
    except GatewayError as error:
        found = [failed(error.message, mend_of(error))]
    except SettingsError as error:
        found = [failed(str(error), "Correct the setting.")]
    place = shown(backend.url)
    return [msgspec.structs.replace(one, system="model server", address=place) for one in found]


def _servers(settings: Settings) -> dict[BackendSettings, tuple[list[str], list[Wanted]]]:
    found: dict[BackendSettings, tuple[list[str], list[Wanted]]] = {}
    for index, entry in enumerate(settings.discover):
        found.setdefault(_server(backend_of(entry)), ([], []))[0].append(f"discover.{index}")
    for index, model in enumerate(settings.models):
        for position, backend in enumerate(model.backends):
            setting = f"models.{index}.backends.{position}"
            names, wanted = found.setdefault(_server(backend), ([], []))
            names.append(setting)
            name = backend.model or model.id
            wanted.append(Wanted(setting=setting, name=name, id=model.id, kind=model.kind))
    return found


def _server(backend: BackendSettings) -> BackendSettings:
    """Without what concerns one model there."""
    plain = msgspec.structs.replace(backend, model=None, weight=1, priority=0)
    return msgspec.structs.replace(plain, url=plain.url.rstrip("/").removesuffix("/v1"))


class _Look:
    """At one server."""

    def __init__(
        self,
        systems: Systems,
        backend: BackendSettings,
        settings: list[str],
        wanted: list[Wanted],
        answers: Answers,
    ) -> None:
        self._systems = systems
        self._backend = backend
        self._settings = settings
        self._wanted = wanted
        self._answers = answers

    async def __call__(self) -> list[Outcome]:
        try:
            async with closed_after(self._systems.model_server(self._backend)) as server:
                return await self._ask(server)
        except httpx.HTTPError as error:
            return [failed(str(error) or type(error).__name__, "Look into its log.")]
        finally:
            self._answers.outstanding -= 1
            if not self._answers.outstanding:
                self._answers.complete.set()

    async def _ask(self, server: ModelServer) -> list[Outcome]:
        listed = await server.list_models()
        kind = await server.find_kind()
        names = [model.name for model in listed]
        answer = Answer(kind=kind, names=names, dimensions={})
        for setting in self._settings:
            self._answers.servers[setting] = answer
        if not names:
            return [failed("it lists no model", "Wait until it has loaded one; look into its log.")]
        outcomes = self._missing(names, kind)
        for name in self._to_ask(names):
            began = time.monotonic()
            try:
                said = await _use(server, kind, name, answer)
            except GatewayError as error:
                outcomes.append(
                    failed(f"lists {name} and doesn't answer: {error.message}", mend_of(error))
                )
            else:
                took = f"{time.monotonic() - began:.2f} s"
                outcomes.append(fine(f"{name} ({kind}) {said} in {took}"))
        if len(names) > MOST_ASKED:
            outcomes.append(fine(f"{len(names)} models in all"))
        return outcomes

    def _missing(self, names: list[str], kind: ServerKind) -> list[Outcome]:
        outcomes = []
        for one in self._wanted:
            if one.name not in names:
                outcomes.append(
                    failed(
                        f"{one.id} isn't served: there is no {one.name}, but {', '.join(names)}",
                        f"Correct {one.setting}.model, or start the server with "
                        f"--served-model-name {one.name}.",
                    )
                )
            elif one.kind in ("embedding", "rerank") and one.kind != kind:
                outcomes.append(
                    failed(
                        f"{one.id} is of kind {one.kind} by the settings, and this server is for "
                        f"{kind}",
                        f"Correct the model's kind or the address in {one.setting}.",
                    )
                )
        return outcomes

    def _to_ask(self, names: list[str]) -> list[str]:
        """Those that the configuration names come first."""
        named = [one.name for one in self._wanted if one.name in names]
        if not any(setting.startswith("discover") for setting in self._settings):
            names = named
        return list(dict.fromkeys([*named, *names]))[:MOST_ASKED]


async def _use(server: ModelServer, kind: ServerKind, model: str, answer: Answer) -> str:
    """The least that shows that it works: one token, one vector, one ranking. What was seen."""
    if kind == "embedding":
        size = await server.embedding_dimension(model)
        answer.dimensions[model] = size
        return f"made a vector of {size} dimensions"
    if kind == "rerank":
        await _post(server, "/v1/rerank", {"model": model, "query": "a", "documents": ["a"]})
        return "ranked a document"
    message = {"role": "user", "content": "Hi"}
    try:
        body = {"model": model, "messages": [message], "max_tokens": 1}
        await _post(server, "/v1/chat/completions", body)
    except _REFUSALS as refused:
        try:
            await _post(
                server, "/v1/completions", {"model": model, "prompt": "Hi", "max_tokens": 1}
            )
        except _REFUSALS:
            raise refused from None
        return "completed a text (it has no chat template, so it can't chat)"
    return "chatted"


async def _post(server: ModelServer, path: str, body: object) -> None:
    """Raises the error that the answer means."""
    answer = await server.send(path, msgspec.json.encode(body))
    if not 200 <= answer.status < 300:
        raise await server.refusal(path, answer)
    try:
        await answer.read()
    finally:
        answer.close()


def different_dimensions(settings: Settings, answers: Answers) -> list[Outcome]:
    """Backends of one embedding model whose vectors can't be compared."""
    outcomes = []
    for index, model in enumerate(settings.models):
        sizes = {}
        for position, backend in enumerate(model.backends):
            answer = answers.servers.get(f"models.{index}.backends.{position}")
            size = answer and answer.dimensions.get(backend.model or model.id)
            if size:
                sizes[shown(backend.url)] = size
        if len(set(sizes.values())) > 1:
            said = ", ".join(f"{size} at {where}" for where, size in sizes.items())
            outcomes.append(
                failed(
                    f"the backends of {model.id} make vectors of different lengths: {said}",
                    "Give each embedding model an id of its own.",
                )
            )
    return outcomes


def single_embedding_model(settings: Settings, answers: Answers) -> list[Outcome]:
    """Whether stores that name no embedding model get one."""
    if settings.embedding.default_model is not None:
        return []
    ids = {
        model.id
        for index, model in enumerate(settings.models)
        if model.kind == "embedding"
        or any(
            (answer := answers.servers.get(f"models.{index}.backends.{position}")) is not None
            and answer.kind == "embedding"
            for position in range(len(model.backends))
        )
    }
    for setting, answer in answers.servers.items():
        if setting.startswith("discover") and answer.kind == "embedding":
            ids.update(answer.names)
    if len(ids) > 1:
        return [
            warned(
                f"there are {len(ids)} embedding models and no default: stores must name one",
                "Name one in embedding.default_model.",
            )
        ]
    return []
