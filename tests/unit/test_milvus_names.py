"""What the adapter for Milvus derives without a server: names, expressions, versions, texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.milvus import filters
from adapters.milvus.features import features_of, require_keyword
from adapters.milvus.layout import PerStore, Shared, escaped, unescaped
from adapters.milvus.schema import TEXT_BYTES, cut
from adapters.milvus.words import words_of
from gateway.errors import InvalidRequest
from gateway.ports import StoreIndex


def store(project: str, store_id: str, *, keyword: bool = False) -> StoreIndex:
    return StoreIndex(project=project, store_id=store_id, dimension=384, keyword=keyword)


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0")))
def test_a_store_is_read_back_from_its_collection(text):
    """Whatever its id is made of, in letters, digits and underscores."""
    name = PerStore().collection(store("p", f"vs{text}"))
    assert name.isascii()
    assert name.replace("_", "a").isalnum()
    assert PerStore.store_of(name) == f"vs{text}"
    assert unescaped(escaped(text)) == text


def test_names_are_readable_and_apart():
    """An ordinary id is in the name as it is; projects, dimensions and words have their own."""
    name = PerStore().collection(store("default", "vs_68f0a1"))
    assert name.endswith("_vs_68f0a1")
    assert name != PerStore().collection(store("other", "vs_68f0a1"))
    assert Shared().collection(store("default", "vs_1")) == "understudy_shared_384"
    assert (
        Shared().collection(store("default", "vs_1", keyword=True)) == "understudy_shared_384_text"
    )
    assert Shared().row_id(store("a", "vs_1"), "c") != Shared().row_id(store("b", "vs_1"), "c")


@pytest.mark.parametrize(
    "name", ["understudy_shared_384", "understudy_", "other", "understudy_x_y"]
)
def test_other_collections_are_nobodys_store(name):
    """So that none of them is ever dropped as an orphan."""
    assert PerStore.store_of(name) is None


@given(st.text())
def test_text_is_cut_by_bytes(text):
    """At most 60,000, valid UTF-8, and unchanged where it fits."""
    long = cut(text * 4000)
    assert len(long.encode()) <= TEXT_BYTES
    fitting = text.encode("utf-8", "replace").decode()
    assert cut(text) == fitting
    assert (fitting * 4000).startswith(long)


@pytest.mark.parametrize(
    ("version", "engine", "keyword"),
    [
        ("v2.3.5-lite", "Milvus 2.3.5", False),
        ("2.4.15", "Milvus 2.4.15", False),
        ("v2.5.0", "Milvus 2.5.0", True),
        ("v2.6.4-gpu", "Milvus 2.6.4", True),
        ("v3.0.0", "Milvus 3.0.0", True),
        ("milvus_lite-3.2.2", "Milvus Lite 3.2.2", True),
        ("Zilliz Cloud Vector Database(Compatible with Milvus 2.4)", "Milvus 2.4", False),
        ("master-abcdef", "Milvus master-abcdef", True),
    ],
)
def test_a_version_tells_what_there_is(version, engine, keyword):
    """Full-text search came with Milvus 2.5."""
    features = features_of(version)
    assert (features.engine, features.keyword) == (engine, keyword)
    if not keyword:
        with pytest.raises(InvalidRequest, match=r"Milvus 2\.5 or newer"):
            require_keyword(features)


def test_expressions_quote_and_split():
    """A value can't end its literal; a clause has a thousand values at most."""
    assert filters.equals("a", 'x" or "') == 'a == "x\\" or \\""'
    expression = filters.any_of("a", [str(number) for number in range(2500)])
    assert expression.count(" in [") == 3
    assert filters.all_of("", expression) == expression
    assert [len(piece) for piece in filters.pieces(["a", "b", "a"] * 10_000)] == [2]
    assert [len(x) for x in filters.pieces([str(n) for n in range(25_000)])] == [
        10_000,
        10_000,
        5000,
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("plain words, LH-407", ["plain", "words,", "LH-407"]),
        ("Größe naïve Ελλάδα", ["Größe", "naïve", "Ελλάδα"]),
        ("每位员工", ["每位", "位员", "员工"]),
        ("茶", ["茶"]),
        ("lamp 407:ランプが", ["lamp", "407:", "ラン", "ンプ", "プが"]),
    ],
)
def test_text_without_spaces_becomes_pairs(text, words):
    """What is written with spaces stays as it is."""
    assert words_of(text).split() == words


@given(st.text(min_size=2, max_size=40), st.text(max_size=40))
def test_a_part_of_a_clause_is_found_in_it(part, rest):
    """Every word of a query that is a piece of a text is a word of the text."""
    clause = "".join(chr(0x4E00 + ord(letter) % 5000) for letter in part)
    more = "".join(chr(0x4E00 + ord(letter) % 5000) for letter in rest)
    assert set(words_of(clause).split()) <= set(words_of(more + clause + more).split())
