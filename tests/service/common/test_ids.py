"""Identifiers sort by the time they were made."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from service.common.ids import new_id


def test_later_identifiers_sort_after_earlier_ones() -> None:
    made = [new_id() for _ in range(5000)]
    assert made == sorted(set(made))
    assert {len(identifier) for identifier in made} == {26}


def test_threads_never_make_the_same_one() -> None:
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: new_id(), range(5000)))
    assert len(set(made)) == 5000
