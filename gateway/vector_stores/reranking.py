"""Hits put in order by a rerank model of the catalog."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from gateway.errors import InvalidRequest, ModelNotFound, UpstreamError
from gateway.http.validation import NOT_JSON
from gateway.observability.activity import Activity
from gateway.relay.client import ModelClient
from gateway.rerank.schemas import RankedItem
from gateway.rerank.service import RERANK
from gateway.routing.catalog import AllowedModels, Catalog

__all__ = ["Reranker"]


class _Results(Struct, frozen=True):
    results: list[RankedItem]


_results = msgspec.json.Decoder(_Results)


class Reranker:
    """``default_model`` is that of the configuration."""

    def __init__(self, catalog: Catalog, client: ModelClient, default_model: str | None) -> None:
        self._catalog = catalog
        self._client = client
        self._default = default_model

    def model(self, name: str | None, param: str, allowed: AllowedModels = None) -> str:
        """The model to use: this one, the configured one, or the only rerank model there is.

        The configured one is everybody's; any other must be one that the caller may use.

        Raises ``InvalidRequest`` where there is none or the choice isn't clear.
        """
        chosen = name or self._default
        if name is None and self._default is not None:
            allowed = None
        if chosen is None:
            known = [one.id for one in self._catalog.models(allowed) if one.kind == "rerank"]
            if len(known) != 1:
                which = "several rerank models" if known else "no rerank model"
                raise InvalidRequest(
                    f"Missing required parameter: '{param}'. The ranker 'neural' needs a rerank "
                    f"model: the gateway knows {which} and none is configured "
                    "(search.rerank_model).",
                    param=param,
                    code="missing_required_parameter",
                )
            chosen = known[0]
        try:
            return self._catalog.find(chosen, RERANK.kinds, allowed).id
        except (ModelNotFound, InvalidRequest) as error:
            raise type(error)(error.message, param=param) from None

    async def scores(
        self, activity: Activity, model: str, query: str, texts: Sequence[str]
    ) -> list[float]:
        """How well each text answers the query. Raises ``UpstreamError`` and the model's refusals.

        A text that is longer than the model reads is cut by its server.
        """
        if not texts:
            return []
        request = {
            "model": model,
            "query": query,
            "documents": list(texts),
            "truncate_prompt_tokens": -1,
        }
        body = await self._client.ask(RERANK, activity, request)
        try:
            results = _results.decode(body).results
        except NOT_JSON as error:
            raise UpstreamError(f"The model server's answer is not a ranking: {error}") from None
        scores = {one.index: one.relevance_score for one in results}
        if scores.keys() != set(range(len(texts))):
            raise UpstreamError(
                f"The rerank model '{model}' ranked {len(scores)} of {len(texts)} texts."
            )
        return [scores[index] for index in range(len(texts))]
