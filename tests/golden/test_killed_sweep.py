"""A sweep whose service was killed goes on where it was, whichever version goes on with it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import sqlalchemy as sa

from layers.space.document import read_document
from service.database.models import Sweep
from service.database.sessions import Database
from service.settings import Settings
from service.sweeps.sampling import choose
from tests.golden.killed_sweep import SAMPLERS, go_on, load
from tests.golden.recordings import RENEWS, ChangedError, compare

DATASET = {"task": "causal_lm", "tokenizer": "char", "facts": {"vocabulary_size": 64}}


def _as_text(found: Any) -> str:
    return json.dumps(found, indent=1, sort_keys=True)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_next_points_of_a_killed_sweep_are_the_recorded_ones(
    database: Database, settings: Settings, sampler: str
) -> None:
    load(database, sampler)
    compare(f"killed/{sampler}.json", _as_text(go_on(database, settings)))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_sweep_keeps_the_sampler_that_auto_was_when_it_was_accepted(database: Database, settings: Settings) -> None:
    load(database, "tpe")
    go_on(database, settings)
    (sweep,) = database.read(lambda session: list(session.scalars(sa.select(Sweep))))
    assert (sweep.document["search"]["sampler"], sweep.sampler) == ("auto", "tpe")
    assert choose(*read_document(sweep.document, find_dataset=lambda name: DATASET)).sampler == "surrogate"


@pytest.mark.skipif(RENEWS, reason="nothing planted is recorded")
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_point_that_the_database_lost_is_noticed(database: Database, settings: Settings) -> None:
    load(database, "tpe")
    forget = sa.text("UPDATE asks SET told = NULL, state = 'asked' WHERE ask = 7")
    database.write(lambda session: session.execute(forget) and None)
    with pytest.raises(ChangedError, match="killed/tpe"):
        compare("killed/tpe.json", _as_text(go_on(database, settings)))
