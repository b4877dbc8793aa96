from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from layers.expressions.metric_names import MetricNames
from service.database.models import Sweep, Trial
from service.events import events
from service.results import columns as module
from service.results.columns import ColumnStore, metric_names
from service.results.pareto import LAST_RANK
from service.results.selection import Filters, needed, select
from tests.service.sweep_rows import add_sweep, add_trial, rank

NAMES = ("latency_ms_p50", "validation_loss", "num_layers", "mlp.kind", "training.bias")


def parameters(number):
    return {"num_layers": number % 3, "mlp.kind": ["MLP", "GatedMLP"][number % 2], "training.bias": number > 2}


def end(session, sweep, number, **changes):
    """A trial that ends, with the event that says so."""
    values = {"latency_ms_p50": 1.0 + number % 4, "validation_loss": 3.0 - number / 5}
    trial = add_trial(session, sweep, number, values, parameters=parameters(number), **changes)
    events.append(session, sweep.id, "trial.ended", trial_id=trial.id, data={"number": number})
    return trial


@pytest.fixture
def sweep_id(database) -> str:
    def fill(session):
        sweep = add_sweep(session)
        rank(session, sweep, [end(session, sweep, number) for number in range(6)])
        return sweep.id

    return database.write(fill)


def columns(database, sweep_id, store):
    return database.read(lambda session: store.of(session, session.get(Sweep, sweep_id), NAMES))


def same(one, other) -> bool:
    for each in dataclasses.fields(one):
        if each.name in ("values", "_parts"):
            continue
        mine, theirs = getattr(one, each.name), getattr(other, each.name)
        assert np.array_equal(mine, theirs, equal_nan=each.name == "ended_at"), each.name
    for name in NAMES:
        shown = [[column.at(index) for index in range(len(one))] for column in (one.named(name), other.named(name))]
        assert shown[0] == shown[1], name
    return True


def test_columns_hold_what_the_rows_hold(database, sweep_id):
    found = columns(database, sweep_id, ColumnStore())
    assert found.number.tolist() == list(range(6))
    assert [found.named("mlp.kind").at(index) for index in range(3)] == ["MLP", "GatedMLP", "MLP"]
    assert [found.named("training.bias").at(index) for index in (2, 3)] == ["false", "true"]
    assert found.named("num_layers").at(4) == 1
    assert found.named("norm.kind").at(0) is None
    assert found.competing.all()
    assert database.read(lambda s: metric_names(s, s.get(Sweep, sweep_id))) == [
        "latency_ms_p50",
        "validation_loss",
    ]


def test_kept_columns_follow_what_happens(database, sweep_id):
    """What is renewed step by step is what is read afresh, however a trial or a rank changed."""
    store = ColumnStore()
    columns(database, sweep_id, store)

    def new_trial(session):
        end(session, session.get(Sweep, sweep_id), 7, feasible=False)

    def queued_before_it(session):
        sweep = session.get(Sweep, sweep_id)
        trial = add_trial(session, sweep, 6, parameters={"num_layers": 9, "mlp.kind": "FusedGatedMLP"})
        events.append(session, sweep_id, "trial.queued", trial_id=trial.id, data={"number": 0})

    def ended_now(session):
        trial = session.query(Trial).filter_by(sweep_id=sweep_id, number=6).one()
        trial.state, trial.feasible = "failed", None
        events.append(session, sweep_id, "trial.ended", trial_id=trial.id, data={"number": 0})

    def a_number_where_words_were(session):
        trial = end(session, session.get(Sweep, sweep_id), 9)
        trial.parameters = trial.parameters | {"mlp.kind": 7}

    def words_nobody_had(session):
        for number in (8, 10):
            end(session, session.get(Sweep, sweep_id), number).parameters = {"mlp.kind": f"Kind{number}"}

    def ranked_last(session):
        rank(session, session.get(Sweep, sweep_id), session.query(Trial).filter_by(sweep_id=sweep_id, feasible=True))
        session.query(Trial).filter_by(sweep_id=sweep_id, number=8).one().pareto_rank = LAST_RANK
        session.get(Sweep, sweep_id).scheduled_sequence += 1

    def ranked(session):
        for trial in session.query(Trial).filter_by(sweep_id=sweep_id):
            trial.pareto_rank = None if trial.pareto_rank is None else min(trial.pareto_rank + 1, LAST_RANK)
        session.get(Sweep, sweep_id).scheduled_sequence += 1

    for change in (
        new_trial,
        queued_before_it,
        ended_now,
        words_nobody_had,
        ranked_last,
        a_number_where_words_were,
        ranked,
    ):
        database.write(change)
        assert same(columns(database, sweep_id, store), columns(database, sweep_id, ColumnStore())), change.__name__


def test_where_much_changed_all_is_read_afresh(database, sweep_id, monkeypatch):
    monkeypatch.setattr(module, "MANY", 1)
    store = ColumnStore()
    columns(database, sweep_id, store)

    def several(session):
        for number in (6, 7, 8):
            end(session, session.get(Sweep, sweep_id), number)

    database.write(several)
    assert same(columns(database, sweep_id, store), columns(database, sweep_id, ColumnStore()))


def test_nothing_is_read_again_while_nothing_happened(database, sweep_id):
    store = ColumnStore()
    before = columns(database, sweep_id, store)
    assert columns(database, sweep_id, store).number is before.number


def test_only_so_many_trials_stay_in_memory(database, sweep_id):
    other = database.write(lambda session: add_sweep(session).id)
    store = ColumnStore(max_trials=3)
    first = columns(database, sweep_id, store)
    columns(database, other, store)
    assert columns(database, sweep_id, store).number is not first.number


def test_a_page_begins_where_the_last_one_ended_although_its_last_trial_is_gone(database, sweep_id):
    found = columns(database, sweep_id, ColumnStore())
    by_loss = select(found, [{"metric": "validation_loss", "goal": "minimize"}], "-validation_loss", Filters())
    first, token = by_loss.page(3, None)
    assert found.number[first].tolist() == [0, 1, 2]
    fewer = dataclasses.replace(by_loss, order=by_loss.order[by_loss.order != 2])
    assert found.number[fewer.page(2, token)[0]].tolist() == [3, 4]


def test_what_a_selection_needs_is_known_before_anything_is_read():
    objectives = [{"metric": "validation_loss", "goal": "minimize"}]
    assert needed(objectives, MetricNames(), ["num_layers"], "rank", Filters()) == ["validation_loss"]
    assert needed(objectives, MetricNames(), ["num_layers"], "-num_layers", Filters()) == ["num_layers"]
