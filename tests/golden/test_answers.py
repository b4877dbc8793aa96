"""What a service answers and tells, and what commands print of it, on both databases alike."""

from __future__ import annotations

import re
from pathlib import Path

from tests.golden import answers, command_line, notices, recordings
from tests.golden.world import World


def test_every_answer_is_what_was_recorded(filled: World, tmp_path: Path) -> None:
    recordings.compare_folder("answers", answers.read(filled))
    recordings.compare_folder("notices", notices.read(filled))
    if filled.services.database.dialect == "sqlite":
        # Commands see nothing but answers, which are compared on both databases. The last of them change what is there.
        recordings.compare_folder("command_line", command_line.read(filled, tmp_path))


def test_every_operation_and_page_is_asked_for(filled: World) -> None:
    asked = [path.partition("?")[0] for _, path in answers.paths(filled)]
    forgotten = [
        template
        for template in answers.templates(filled) - answers.RECORDED_ELSEWHERE
        if not any(re.fullmatch(re.sub(r"\{[^}]+\}", "[^/:]+", template), path) for path in asked)
    ]
    assert not forgotten, "ask for each of these in tests/golden/answers.py"
