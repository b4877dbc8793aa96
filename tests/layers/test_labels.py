"""Labels: read, shown, compared."""

from __future__ import annotations

import pytest

from layers.labels import missing_labels, parse_labels, shown_labels


def test_what_is_shown_is_read_again() -> None:
    labels = parse_labels("site=a, gpu=h100")
    assert labels == {"site": "a", "gpu": "h100"}
    assert shown_labels(labels) == "gpu=h100,site=a"
    assert parse_labels(shown_labels(labels)) == labels
    assert parse_labels("") == {}


@pytest.mark.parametrize("text", ["site", "site=", "=a", "a=b,a=c", "si te=a", "a=b,", "a='b'"])
def test_what_is_no_label_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"label|form"):
        parse_labels(text)


def test_a_label_with_another_value_is_missing() -> None:
    assert missing_labels({"site": "a", "gpu": "h100"}, {"site": "b", "gpu": "h100"}) == {"site": "a"}
    assert missing_labels({}, {"site": "b"}) == {}
