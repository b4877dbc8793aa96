"""What a service answers, byte for byte but for identifiers and times, on both databases alike."""

from __future__ import annotations

from tests.golden import answers, recordings
from tests.golden.world import World


def test_every_answer_is_what_was_recorded(filled: World) -> None:
    kind = filled.services.database.engine.dialect.name
    variant = None if kind == "sqlite" else kind
    recordings.compare_folder("answers", answers.read(filled), variant=variant)
