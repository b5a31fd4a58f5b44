"""Fields of a JSON object are set while every other value stays byte for byte what it was."""

from __future__ import annotations

import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from gateway.relay.json_object import rename_model, replace_fields

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=6), VALUES, max_size=5)


@given(value=OBJECTS, ascii_only=st.booleans(), new=VALUES)
def test_all_else_stays(value, ascii_only, new):
    """Whatever the object and the value."""
    body = json.dumps(value, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return  # a lone surrogate: no JSON, and refused before it comes here
    fields = {"model": Raw(json.dumps(new).encode())}
    assert json.loads(replace_fields(body, fields)) == {**value, "model": new}


def test_digits_escapes_and_blanks_stay():
    """The very bytes of each value."""
    body = rb'{"a": 1.10, "b":12345678901234567890123, "c": "\u00e9\/" , "d":[1,  2], "model":"x"}'
    replaced = replace_fields(body, {"model": Raw(b'"y"')})
    for value in (b"1.10", b"12345678901234567890123", rb'"\u00e9\/"', b"[1,  2]", b'"model":"y"'):
        assert value in replaced


def test_a_key_given_twice_is_set_once():
    """The last one counts in JSON; none of the old is left to be read by someone else."""
    replaced = replace_fields(b'{"model":"a","model":"b"}', {"model": Raw(b'"c"')})
    assert replaced == b'{"model":"c"}'


def test_a_name_is_set_where_it_stands():
    """At the top or deeper, and nowhere if it isn't there."""
    name = Raw(b'"asked"')
    assert rename_model(b'{"id":1,"model":"x"}', ("model",), name) == b'{"id":1,"model":"asked"}'
    deeper = b'{"type":"message_start","message":{"model":"x","n":1.0}}'
    assert rename_model(deeper, ("message", "model"), name) == deeper.replace(b'"x"', b'"asked"')
    for body in (b'{"id":1}', b'{"type":"ping"}'):
        assert rename_model(body, ("message", "model"), name) is body
