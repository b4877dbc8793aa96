"""What a service answers, byte for byte but for identifiers and times, on both databases alike."""

from __future__ import annotations

import re

from tests.golden import answers, recordings
from tests.golden.world import World


def test_every_answer_is_what_was_recorded(filled: World) -> None:
    recordings.compare_folder("answers", answers.read(filled))
    asked = [path.partition("?")[0] for _, path in answers.paths(filled)]
    forgotten = [
        template
        for template in answers.templates(filled) - answers.RECORDED_ELSEWHERE
        if not any(re.fullmatch(re.sub(r"\{[^}]+\}", "[^/:]+", template), path) for path in asked)
    ]
    assert not forgotten, "ask for each of these in tests/golden/answers.py"
