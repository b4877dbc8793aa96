"""A worker and its engine child say to each other what they always did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.golden.engine_transcript import lines
from tests.golden.recordings import RENEWS, ChangedError, compare
from workers.processes import child


def _compare(found: list[dict[str, Any]]) -> None:
    compare("engine_transcript.txt", "\n".join(map(json.dumps, found)))


def test_every_line_between_parent_and_child_is_the_recorded_one(tmp_path: Path) -> None:
    _compare(lines(tmp_path))


@pytest.mark.skipif(RENEWS, reason="nothing planted is recorded")
def test_another_field_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = json.dumps
    monkeypatch.setattr(child.json, "dumps", lambda value, **options: written({**value, "pid": 1}, **options))
    asked = lines(tmp_path)
    monkeypatch.undo()
    with pytest.raises(ChangedError, match=r"(?s)engine_transcript.*pid"):
        _compare(asked)
