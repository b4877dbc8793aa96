from __future__ import annotations

from pathlib import Path

import pytest

from service.datasets.content_folders import remove_unless_needed


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = tmp_path / "datasets" / "0a"
    place.mkdir(parents=True)
    (place / "training.npz").write_bytes(b"old")
    return place


def test_a_folder_is_removed_only_where_nobody_needs_it(place: Path) -> None:
    remove_unless_needed(place, lambda: True)
    assert (place / "training.npz").read_bytes() == b"old"
    remove_unless_needed(place, lambda: False)
    assert list(place.parent.iterdir()) == []
    remove_unless_needed(place, lambda: False)


def test_a_folder_that_is_needed_meanwhile_comes_back(place: Path) -> None:
    answers = iter([False, True])
    remove_unless_needed(place, lambda: next(answers))
    assert (place / "training.npz").read_bytes() == b"old"


def test_a_folder_that_was_written_again_meanwhile_stays(place: Path) -> None:
    def written_again() -> bool:
        if not place.exists():
            place.mkdir()
            (place / "training.npz").write_bytes(b"new")
            return True
        return False

    remove_unless_needed(place, written_again)
    assert (place / "training.npz").read_bytes() == b"new"
    assert list(place.parent.iterdir()) == [place]


def test_a_folder_of_which_that_cannot_be_asked_comes_back(place: Path) -> None:
    def away() -> bool:
        if place.exists():
            return False
        raise ConnectionError("the database is away")

    with pytest.raises(ConnectionError):
        remove_unless_needed(place, away)
    assert (place / "training.npz").read_bytes() == b"old"


def test_of_two_who_remove_a_folder_the_second_finds_nothing(place: Path) -> None:
    def removed_by_another() -> bool:
        remove_unless_needed(place, lambda: False)
        return False

    remove_unless_needed(place, removed_by_another)
    assert list(place.parent.iterdir()) == []
