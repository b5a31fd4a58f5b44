"""Putting the catalog's models together from what was configured and what servers said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from gateway.ports import ServedModel
from gateway.routing.catalog import Backend, Model
from gateway.routing.guard_names import guard_form
from gateway.routing.server_state import ServerState, identity_of
from gateway.settings import BackendSettings, ModelKind, ModelSettings

__all__ = ["Assembly"]

Servers = Mapping[BackendSettings, ServerState]


class Assembly:
    """Makes models, and remembers what of a model outlives its being made anew."""

    def __init__(self) -> None:
        self._known: dict[str, Model] = {}

    def build(self, configured: Iterable[ModelSettings], servers: Servers) -> list[Model]:
        """The configured models first, then what was discovered under other names.

        Of two configured ones of a name the first is taken.
        """
        models = {}
        names: set[str] = set()
        for settings in configured:
            if settings.id not in names:
                models[settings.id] = self._configured(settings, servers)
                names.update((settings.id, *settings.aliases))
        found: dict[str, list[tuple[ServerState, ServedModel]]] = {}
        for state in servers.values():
            if state.discovered:
                for served in state.models:
                    if served.name not in names:
                        found.setdefault(served.name, []).append((state, served))
        for name, places in found.items():
            models[name] = self._found(name, places)
        self._known = models
        return list(models.values())

    def _configured(self, model: ModelSettings, servers: Servers) -> Model:
        backends, providers = [], []
        kind, dimension, context_length = model.kind, None, None
        for settings in model.backends:
            state = servers[identity_of(settings)]
            name = settings.model or model.id
            providers.append(state.provider_id)
            backends.append(
                Backend(
                    server=state.server,
                    model=name,
                    weight=settings.weight,
                    priority=settings.priority,
                )
            )
            kind = kind or _kind(state, model.id, name)
            dimension = dimension or state.dimensions.get(name)
            context_length = context_length or _context_length(state, name)
        return self._model(
            Model(
                id=model.id,
                backends=backends,
                kind=kind,
                aliases=model.aliases,
                providers=providers,
                dimension=dimension,
                context_length=context_length,
            )
        )

    def _found(self, name: str, places: Sequence[tuple[ServerState, ServedModel]]) -> Model:
        first, served = places[0]
        return self._model(
            Model(
                id=name,
                backends=[Backend(server=state.server, model=name) for state, _ in places],
                kind=_kind(first, name),
                providers=[state.provider_id for state, _ in places],
                dimension=first.dimensions.get(name),
                context_length=served.context_length,
            )
        )

    def _model(self, model: Model) -> Model:
        """The model, with the time at which it was first seen."""
        if (known := self._known.get(model.id)) is not None:
            model.created = known.created
        return model


def _kind(state: ServerState, *names: str) -> ModelKind | None:
    """What a model with these names is for: a server that chats may run a guard."""
    if state.kind == "chat" and any(guard_form(name) for name in names):
        return "moderation"
    return state.kind


def _context_length(state: ServerState, name: str) -> int | None:
    return next((model.context_length for model in state.models if model.name == name), None)
