"""Strict JSON: what lenient parsers let through is refused with its own code."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from danlu.serve.refusal import Refusal
from danlu.serve.wire import parse

BAD = {
    b"": "invalid_json",
    b"{": "invalid_json",
    b"nul": "invalid_json",
    b"[NaN]": "invalid_json",
    b"[Infinity]": "invalid_json",
    b"[1e999]": "invalid_json",
    b"[-1e999]": "invalid_json",
    b"[" + b"9" * 5000 + b"]": "invalid_json",
    b"[" * 100_000: "invalid_json",
    b'\xef\xbb\xbf{"a": 1}': "invalid_json",
    '{"a": 1}'.encode("utf-16"): "invalid_json",
    b'"\xff"': "invalid_json",
    b'{"a": 1, "a": 1}': "duplicate_key",
    b'[{"b": {"a": 1, "a": 2}}]': "duplicate_key",
    b'{"a": "\\ud800"}': "not_text",
    b'{"\\udfff": 1}': "not_text",
}


@pytest.mark.parametrize(("body", "code"), BAD.items(), ids=[repr(body[:20]) for body in BAD])
def test_refused(body: bytes, code: str) -> None:
    with pytest.raises(Refusal) as caught:
        parse(body)
    assert caught.value.code == code


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(value=json_values)
def test_everything_else_is_read_as_it_was_written(value: object) -> None:
    assert parse(json.dumps(value).encode()) == value


@given(body=st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(Refusal):
        parse(body)
