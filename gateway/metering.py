"""What counts, limits and writes down, put together: limits, usage, the audit log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from litestar.handlers import HTTPRouteHandler

from gateway.audit.recording import AuditRecording
from gateway.audit.routes import audit_routes
from gateway.audit.service import AuditLog
from gateway.database.engine import Database
from gateway.errors import ModelNotFound
from gateway.identity.principal import Principal
from gateway.ingestion.reaper import Chore
from gateway.limits.ledger import Ledger
from gateway.limits.limiter import Limiter
from gateway.limits.rules import LimitRules
from gateway.observability.call import ModelCall
from gateway.observability.metrics import Metrics
from gateway.ports import CounterStore
from gateway.relay.admission import Admission
from gateway.routing.catalog import Catalog
from gateway.settings import Settings
from gateway.usage.recorder import UsageRecorder
from gateway.usage.routes import usage_routes
from gateway.usage.service import UsageService

__all__ = ["Metering"]


class Metering:
    """Is told of every call to a model, by telemetry."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        counters: CounterStore,
        catalog: Catalog,
        metrics: Metrics,
    ) -> None:
        self._catalog = catalog
        rules = LimitRules(settings.limits)
        self._limited = rules.any
        self._ledger = Ledger(
            counters, metrics, closed=settings.limits.on_store_failure == "closed"
        )
        self.limiter = Limiter(rules, self._ledger, metrics, self._canonical)
        self._usage = UsageRecorder(database, metrics)
        self._usage_service = UsageService(database, settings.retention.usage_seconds)
        self.audit_log = AuditLog(database, settings.retention.audit_seconds)
        self.recording = AuditRecording(self.audit_log)

    @property
    def admission(self) -> Admission | None:
        """For relays; ``None`` where nothing is limited, so that it costs nothing."""
        return self.limiter if self._limited else None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The time in which requests are taken and work is done."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._usage.running())
            if self._limited:
                await stack.enter_async_context(self._ledger.running())
            yield

    def routes(self) -> list[HTTPRouteHandler]:
        return [*usage_routes(self._usage_service), *audit_routes(self.audit_log)]

    def chores(self) -> dict[str, Chore]:
        """What the reaper does for them."""
        return {
            "forget old usage": self._usage_service.forget,
            "forget old audit entries": self.audit_log.forget,
            "forget old counters": self._ledger.tidy,
        }

    # -- what telemetry tells -------------------------------------------------------------------

    def relayed(self, principal: Principal, model: str | None, call: ModelCall) -> None:
        self._usage.add(principal, model or call.model, call)

    def called(self, principal: Principal, call: ModelCall) -> None:
        self._usage.add(principal, self._canonical(call.model), call)
        if self._limited:
            self.limiter.count(principal, call)

    def _canonical(self, name: str) -> str:
        """The id of a model; of one that is gone, the name it was asked for by."""
        try:
            return self._catalog.get(name).id
        except ModelNotFound:
            return name
