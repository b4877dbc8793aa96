"""Bodies to documents: YAML and JSON mean the same, and nothing in them can surprise, or take long."""

import json
import time
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InvalidDocumentError, PayloadTooLargeError, ServiceError, UnsupportedMediaTypeError
from service.sweeps import documents

JSON, YAML = "application/json", "application/yaml"


def refused(body: bytes | str, content_type: str = YAML) -> InvalidDocumentError:
    """Why a body is no document; its problem document is JSON that UTF-8 can carry."""
    body = body.encode() if isinstance(body, str) else body
    with pytest.raises(InvalidDocumentError) as error:
        documents.read(body, content_type)
    json.dumps(error.value.body("/v1/sweeps"), ensure_ascii=False).encode()
    assert all(problem.detail and problem.remedy for problem in error.value.problems)
    return error.value


def test_yaml_and_json_mean_the_same() -> None:
    document: dict[str, Any] = {
        "a": [1, -2, 0.5, 1e-4, 1e300, True, False, None],
        "b": {"c": "text", "d": {}, "e": []},
        "ü": "\n ",
    }
    as_json = json.dumps(document).encode()
    as_yaml = yaml.safe_dump(document, allow_unicode=True).encode()
    assert documents.read(as_json, JSON) == documents.read(as_json, YAML) == documents.read(as_yaml, YAML) == document


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E3", 1000.0),
        ("2.", 2.0),
        (".5", 0.5),
        ("-.5", -0.5),
        ("+7", 7),
        ("010", 10),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("no", "no"),
        ("on", "on"),
        ("y", "y"),
        ("True", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("'1'", "1"),
        ('"true"', "true"),
        ("!!str 1", "1"),
        ("=", "="),
        ("<<", "<<"),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
        ("|\n  hidden_size\n  > 3", "hidden_size\n> 3"),
    ],
)
def test_yaml_is_read_by_its_core_schema(text: str, value: object) -> None:
    read = documents.read(f"a: {text}".encode(), YAML)["a"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(("text", "value"), [("", 0), ("7", 7), ("300", 300)])
def test_leading_zeros_are_only_zeros(text: str, value: int) -> None:
    # Python makes no number of more than 4,300 digits, whatever they are.
    zeros = "0" * 5_000
    assert documents.read(f"a: {zeros}{text}\nb: -{zeros}{text}\nc: +{zeros}{text}".encode(), YAML) == {
        "a": value,
        "b": -value,
        "c": value,
    }


def test_aliases_are_read() -> None:
    body = b"a: &heads {values: [2, 4]}\nb: *heads\nc: [&x 1, *x]"
    assert documents.read(body, YAML) == {"a": {"values": [2, 4]}, "b": {"values": [2, 4]}, "c": [1, 1]}


@pytest.mark.parametrize(
    "content_type", [JSON, "text/json", "application/problem+json", "Application/JSON; charset=UTF-8"]
)
def test_json_types(content_type: str) -> None:
    assert documents.read(b'{"a": 1}', content_type) == {"a": 1}


@pytest.mark.parametrize(
    ("text", "says", "remedy"),
    [
        ("a: 1\n\tb: 2\n", "in line 2, column 1: b: 2", "not with tabs"),
        ("a:\n  - 1\n b: 2\n", "in line 3", "indent"),
        ("name: a: b\n", "in line 1", "with a colon in it is quoted"),
        ("a: [1, 2\nb: 3\n", "in line 2", "close the bracket"),
        ("a: 'x\n", "in line 2", "close the quotation mark"),
        ("a: @x\n", "a: @x", "quote a text"),
    ],
)
def test_what_is_no_yaml_is_shown_with_what_to_do(text: str, says: str, remedy: str) -> None:
    (problem,) = refused(text).problems
    assert says in problem.detail
    assert remedy in problem.remedy


@pytest.mark.parametrize("content_type", [YAML, "text/yaml", "application/x-yaml", "text/x-yaml; charset=utf-8"])
def test_yaml_types(content_type: str) -> None:
    assert documents.read(b"a: 1", content_type) == {"a": 1}


@pytest.mark.parametrize(
    "content_type",
    [None, "", "text/plain", "multipart/form-data; boundary=x", "application/json; charset=latin-1", "json"],
)
def test_other_types_are_refused(content_type: str | None) -> None:
    with pytest.raises(UnsupportedMediaTypeError, match="send"):
        documents.read(b"{}", content_type)


def test_a_byte_order_mark_is_no_mistake() -> None:
    assert documents.read('{"a": 1}'.encode("utf-8-sig"), JSON) == {"a": 1}


@pytest.mark.parametrize(
    "body", [b"\xff\xfe{\x00}\x00", b"a: \xe4", b"\x80", "{}".encode("utf-16"), "{}".encode("utf-32")]
)
def test_other_encodings_are_refused(body: bytes) -> None:
    assert "UTF-8" in refused(body, JSON).detail or "JSON" in refused(body, JSON).detail


def test_a_body_that_is_too_large_is_refused_before_it_is_read() -> None:
    with pytest.raises(PayloadTooLargeError, match="10,000,000"):
        documents.read(b"[" * 10_000_000, JSON)
    with pytest.raises(PayloadTooLargeError, match="at most 3"):
        documents.read(b"{   }", JSON, max_bytes=3)


@pytest.mark.parametrize(
    ("body", "content_type", "pointer", "word"),
    [
        ("", YAML, "", "empty"),
        ("# nothing", YAML, "", "empty"),
        ("", JSON, "", "empty"),
        ("[1]", JSON, "", "mapping"),
        ("- 1", YAML, "", "mapping"),
        ("name", YAML, "", "mapping"),
        ("null", JSON, "", "mapping"),
        ('{"a": ', JSON, "", "line 1, column 7"),
        ("{'a': 1}", JSON, "", "not JSON"),
        ("a: [1\nb: 2", YAML, "", "line 2"),
        ("a: 1\n---\nb: 2", YAML, "", "several documents"),
        ("a: *nothing", YAML, "", "stands for nothing"),
        ("a: &a [*a]", YAML, "", "stands for nothing"),
        ("a: !!python/object/apply:os.system [x]", YAML, "", "tag"),
        ("a: !!timestamp 2024-01-01", YAML, "", "tag"),
        ("a: !local 1", YAML, "", "tag"),
        ("? [1, 2]\n: 3", YAML, "", "name"),
        ("? {a: 1}\n: 3", YAML, "", "name"),
        ("a: {b: 1, c: 2, b: 3}", YAML, "/a/b", "more than once"),
        ("1: x\n'1': y", YAML, "/1", "more than once"),
        ('{"a": [{"b": 1, "b": 2}]}', JSON, "/a/0/b", "more than once"),
        ('{"a": {"b": NaN}}', JSON, "/a/b", "NaN"),
        ('{"a": [-Infinity]}', JSON, "/a/0", "Infinity"),
        ('{"a": 1e999}', JSON, "/a", "too large"),
        ('{"a": 9223372036854775808}', JSON, "/a", "too large"),
        ('{"a": ' + "9" * 100_000 + "}", JSON, "/a", "too large"),
        ("a: .nan", YAML, "/a", "finite"),
        ("a: -.INF", YAML, "/a", "finite"),
        ("a: 1e999", YAML, "/a", "too large"),
        ("a: " + "9" * 10_000, YAML, "/a", "99… is too large"),
        ("a: " + "0" * 5_000 + "9" * 20, YAML, "/a", "too large"),
        ('{"a": "x\\u0000"}', JSON, "/a", "no text"),
        ('{"a": "\\ud800"}', JSON, "/a", "no text"),
        ('{"\\ud800": {"b": NaN}}', JSON, "", "no text"),
        ("a: 'x\x00'", YAML, "", "not YAML"),
        ("a: '\x1b'", YAML, "", "not YAML"),
    ],
)
def test_what_is_no_document_is_refused_with_its_place(body: str, content_type: str, pointer: str, word: str) -> None:
    error = refused(body, content_type)
    (problem,) = error.problems
    assert problem.pointer == pointer
    assert word in problem.detail


def test_all_places_are_named() -> None:
    error = refused('{"a": NaN, "b": [1, 1e999], "c": {"d": 1, "d": 2}, "e/f": Infinity}', JSON)
    assert [problem.pointer for problem in error.problems] == ["/a", "/b/1", "/c/d", "/e~1f"]
    assert "(and 3 more)" in error.detail


@pytest.mark.parametrize(
    ("body", "content_type", "word"),
    [
        ("[" * 500_000, JSON, "nested"),
        ("[" * 500_000, YAML, "nested"),
        ('{"a":' * 100_000, JSON, "nested"),
        ('{"a":' * 40 + "1" + "}" * 40, JSON, "nested"),
        ("{a: " * 40 + "1" + "}" * 40, YAML, "nested"),
        ("- " * 300_000, YAML, "nested"),
        ("a: [" + "1," * 500_000 + "1]", YAML, "values"),
        ('{"a": [' + "1," * 500_000 + "1]}", JSON, "values"),
        ("\n".join(f"k{n}: .nan" for n in range(30_000)), YAML, "finite"),
    ],
)
def test_large_and_deep_bodies_are_refused(body: str, content_type: str, word: str) -> None:
    assert word in refused(body, content_type).detail


def test_aliases_cannot_make_a_small_body_large() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert "aliases count" in str(refused("\n".join(lines)).problems)
    deep = "a: &a0 [x]\n" + "\n".join(f"b{n}: &a{n} [*a{n - 1}]" for n in range(1, 60))
    assert "nested" in refused(deep).detail


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.sampled_from([JSON, YAML]),
)
def test_any_body_is_a_document_or_refused(body: bytes, content_type: str) -> None:
    started = time.perf_counter()
    try:
        document = documents.read(body, content_type)
    except ServiceError as error:
        json.dumps(error.body("/v1/sweeps"), ensure_ascii=False).encode()
    else:
        json.dumps(document, allow_nan=False, ensure_ascii=False).encode()
    assert time.perf_counter() - started < 5


# Without digits: YAML 1.1, which the writer speaks, takes 1e5 for text.
_TEXT = st.text(st.characters(categories=["L", "P", "Zs"]), max_size=12)
_PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(_TEXT, _PLAIN, max_size=4))
def test_what_is_written_is_read(document: dict[str, Any]) -> None:
    assert documents.read(json.dumps(document).encode(), JSON) == document
    assert documents.read(yaml.safe_dump(document, allow_unicode=True, sort_keys=False).encode(), YAML) == document
