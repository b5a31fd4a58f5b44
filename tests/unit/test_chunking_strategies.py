"""What a chunking strategy comes to, and what small maps of properties may hold."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.errors import InvalidRequest
from gateway.routing.catalog import Catalog, Model
from gateway.vector_stores.chunking import DEFAULT_CONTEXT_PROMPT, ChunkingResolver
from gateway.vector_stores.properties import check_attributes, check_metadata
from gateway.vector_stores.schemas import ChunkingStrategy

CATALOG = Catalog(
    [
        Model(id="chat", backends=[], kind="chat", aliases=["writer"]),
        Model(id="embed", backends=[], kind="embedding"),
    ]
)


def resolve(given: dict[str, Any] | None, embedding_model: str = "unknown") -> dict[str, Any]:
    strategy: Any = msgspec.convert(given, ChunkingStrategy | None)
    resolver = ChunkingResolver(CATALOG)
    return resolver.resolve(strategy) or resolver.automatic(embedding_model)


def static(size: int, overlap: int) -> dict[str, Any]:
    sizes = {"max_chunk_size_tokens": size, "chunk_overlap_tokens": overlap}
    return {"type": "static", "static": sizes}


@pytest.mark.parametrize("given", [None, {"type": "auto"}, {"type": "static", "static": {}}])
def test_what_is_left_out_is_eight_hundred_tokens(given):
    """No strategy, `auto` and empty sizes are all OpenAI's defaults, and are shown as such."""
    assert resolve(given) == static(800, 400)


@pytest.mark.parametrize(
    ("context", "size", "overlap"),
    [(None, 800, 400), (8192, 800, 400), (1334, 800, 400), (512, 307, 153), (128, 100, 50)],
)
def test_automatic_chunks_fit_the_embedding_model(context, size, overlap):
    """Sixty tokens of a hundred that it takes; headings and another vocabulary need the rest."""
    backends: Any = [None]
    model = Model(id="e", backends=backends, kind="embedding", context_length=context)
    assert ChunkingResolver(Catalog([model])).automatic("e") == static(size, overlap)


@pytest.mark.parametrize(("size", "overlap"), [(100, 0), (100, 50), (4096, 2048), (101, 50)])
def test_sizes_within_the_limits_are_kept(size, overlap):
    """100 to 4096 tokens, and an overlap of half of that at most."""
    assert resolve(static(size, overlap)) == static(size, overlap)


@pytest.mark.parametrize(("size", "overlap"), [(99, 0), (4097, 0), (200, -1)])
def test_sizes_past_the_limits_do_not_decode(size, overlap):
    """The request is refused as it is read."""
    with pytest.raises(msgspec.ValidationError):
        resolve(static(size, overlap))


@pytest.mark.parametrize(("size", "overlap"), [(100, 51), (101, 51), (800, 401)])
def test_more_than_half_may_not_overlap(size, overlap):
    """The error names the overlap."""
    with pytest.raises(InvalidRequest) as refused:
        resolve(static(size, overlap))
    assert refused.value.param == "chunking_strategy.static.chunk_overlap_tokens"


def test_a_contextual_strategy_is_filled_in():
    """The only chat model, a prompt and limits stand where nothing is said."""
    assert resolve({"type": "contextual", "contextual": {}}) == {
        "type": "contextual",
        "contextual": {
            "model_id": "chat",
            "context_prompt": DEFAULT_CONTEXT_PROMPT,
            "max_chunk_size_tokens": 700,
            "chunk_overlap_tokens": 400,
            "timeout_seconds": 120,
            "max_concurrency": 4,
        },
    }


def test_a_contextual_strategy_keeps_what_is_said():
    """An alias becomes the model's id, which stays when the alias goes elsewhere."""
    given = {
        "model_id": "writer",
        "context_prompt": "{{WHOLE_DOCUMENT}} {{CHUNK_CONTENT}}",
        "max_chunk_size_tokens": 300,
        "chunk_overlap_tokens": 299,
        "timeout_seconds": 7,
        "max_concurrency": 2,
    }
    shown = resolve({"type": "contextual", "contextual": given})
    assert shown["contextual"] == {**given, "model_id": "chat"}


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"model_id": "nobody"}, "model_id"),
        ({"model_id": "embed"}, "model_id"),
        ({"context_prompt": "{{CHUNK_CONTENT}}"}, "context_prompt"),
        ({"context_prompt": "{{CHUNK_CONTENT}} {{WHOLE_DOCUMENT}}"}, "context_prompt"),
        ({"max_chunk_size_tokens": 400}, "chunk_overlap_tokens"),
    ],
)
def test_a_contextual_strategy_that_cannot_work_is_refused(given, name):
    """The error names what is wrong, before any file is touched."""
    with pytest.raises(InvalidRequest) as refused:
        resolve({"type": "contextual", "contextual": given})
    assert refused.value.param == f"chunking_strategy.contextual.{name}"


def test_attributes_stay_what_they_are():
    """Whole numbers stay whole, booleans booleans."""
    given = {"a": 1, "b": 1.0, "c": True, "d": "1", "e": "", "f": -0.5, "g": 10**18}
    kept = check_attributes(given)
    assert kept == given
    assert [type(value) for value in kept.values()] == [type(value) for value in given.values()]
    assert check_attributes(None) == {}


@pytest.mark.parametrize(
    ("given", "param", "code"),
    [
        ({f"k{n}": n for n in range(17)}, "attributes", "object_above_max_properties"),
        ({"k" * 65: 1}, "attributes", "string_above_max_length"),
        ({"k": "v" * 513}, "attributes.k", "string_above_max_length"),
        ({"k": None}, "attributes.k", "invalid_type"),
        ({"k": [1]}, "attributes.k", "invalid_type"),
        ({"k": {}}, "attributes.k", "invalid_type"),
        ({"k": 10**400}, "attributes.k", "invalid_value"),
        ({"k": "a\x00b"}, "attributes", "invalid_value"),
        ({"a\x00b": 1}, "attributes", "invalid_value"),
    ],
)
def test_attributes_past_the_limits_are_refused(given, param, code):
    """The error names the attribute."""
    with pytest.raises(InvalidRequest) as refused:
        check_attributes(given)
    assert (refused.value.param, refused.value.code) == (param, code)


def test_properties_at_the_limits_are_taken():
    """16 properties with keys of 64 and values of 512 characters."""
    given = {f"{n:064}": "v" * 512 for n in range(16)}
    assert check_attributes(given) == given
    assert check_metadata(given) == given


@pytest.mark.parametrize("value", [1, 1.5, True, None, [], {}])
def test_metadata_are_strings(value):
    """As OpenAI has it; the error names the key."""
    with pytest.raises(InvalidRequest) as refused:
        check_metadata({"k": value})
    assert (refused.value.param, refused.value.code) == ("metadata.k", "invalid_type")
