"""Putting the catalog's models together from what was configured and what servers said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from gateway.ports import ModelServer, ServedModel
from gateway.routing.affinity import hash_of
from gateway.routing.breaker import Breaker
from gateway.routing.catalog import Backend, Model
from gateway.routing.guard_names import guard_form
from gateway.routing.observer import Observer
from gateway.routing.retry_budget import RetryBudget
from gateway.routing.server_state import ServerState, identity_of
from gateway.settings import BackendSettings, ModelKind, ModelSettings, RoutingSettings

__all__ = ["Assembly"]

Servers = Mapping[BackendSettings, ServerState]


class Assembly:
    """Makes models, and remembers what of a model outlives its being made anew."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._routing = RoutingSettings()
        self._known: dict[str, Model] = {}
        self._breakers: dict[tuple[ModelServer, str], Breaker] = {}

    def build(
        self, configured: Iterable[ModelSettings], servers: Servers, routing: RoutingSettings
    ) -> list[Model]:
        """The configured models first, then what was discovered under other names.

        Of two configured ones of a name the first is taken.
        """
        self._routing = routing
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
        backends = [backend for model in models.values() for backend in model.backends]
        kept = {(one.server, one.model): one.breaker for one in backends}
        for (server, name), breaker in self._breakers.items():
            if breaker.state != "closed" and (server, name) not in kept:
                self._observer.state_changed(server, name, "closed")  # it is nobody's any more
        self._breakers = kept
        return list(models.values())

    def _configured(self, model: ModelSettings, servers: Servers) -> Model:
        backends, providers = [], []
        kind, dimension, context_length = model.kind, None, None
        for settings in model.backends:
            state = servers[identity_of(settings)]
            name = settings.model or model.id
            providers.append(state.provider_id)
            backends.append(self._backend(state, name, settings.weight, settings.priority))
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
                routing=model.routing.over(self._routing),
            )
        )

    def _found(self, name: str, places: Sequence[tuple[ServerState, ServedModel]]) -> Model:
        first, served = places[0]
        return self._model(
            Model(
                id=name,
                backends=[self._backend(state, name) for state, _ in places],
                kind=_kind(first, name),
                providers=[state.provider_id for state, _ in places],
                dimension=first.dimensions.get(name),
                context_length=served.context_length,
                routing=self._routing,
            )
        )

    def _backend(
        self, state: ServerState, model: str, weight: int = 1, priority: int = 0
    ) -> Backend:
        server, observer = state.server, self._observer
        breaker = self._breakers.get((server, model))
        if breaker is None:
            breaker = self._breakers[server, model] = Breaker(
                self._routing,
                changed=lambda to: observer.state_changed(server, model, to),
                ejected=lambda reason: observer.ejected(server, model, reason),
            )
        breaker.settings = self._routing
        return Backend(
            server=server,
            model=model,
            weight=weight,
            priority=priority,
            provider_id=state.provider_id,
            load=state.load,
            breaker=breaker,
            seed=hash_of(f"{server.name} {model}".encode()),
        )

    def _model(self, model: Model) -> Model:
        """The model, with what has been known of it since it was first seen."""
        model.observer = self._observer
        if (known := self._known.get(model.id)) is not None:
            model.created = known.created
            model.budget = known.budget
            model.budget.settings = model.routing
        else:
            model.budget = RetryBudget(model.routing)
        return model


def _kind(state: ServerState, *names: str) -> ModelKind | None:
    """What a model with these names is for: a server that chats may run a guard."""
    if state.kind == "chat" and any(guard_form(name) for name in names):
        return "moderation"
    return state.kind


def _context_length(state: ServerState, name: str) -> int | None:
    return next((model.context_length for model in state.models if model.name == name), None)
