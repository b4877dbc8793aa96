"""What earlier trials let expect: believed where it holds here, forgotten where it does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from service.scheduling.surrogate.columns import Column
from service.scheduling.surrogate.prior import EarlierTrial, Prior
from service.scheduling.surrogate.sampler import SurrogateSampler
from service.scheduling.surrogate.space import CodedSpace, SearchSpace

SPACE = SearchSpace(
    {
        "rate": FloatDistribution(1e-4, 1e-1, log=True),
        "width": IntDistribution(0, 7),
        "kind": CategoricalDistribution(["plain", "gated", "fused"]),
    }
)


def costs_of(rate: float, width: float, kind: str) -> tuple[float, float]:
    kinds = {"plain": 0.3, "gated": 0.0, "fused": 0.1}
    return 1 + width**1.5, 1 + 4 / (1 + width) + 0.4 * (np.log10(rate) + 2.5) ** 2 + kinds[kind]


def turned(rate: float, width: float, kind: str) -> tuple[float, float]:
    return costs_of(1e-5 / rate, 7 - width, {"plain": "gated", "gated": "plain", "fused": "fused"}[kind])


def earlier(costs: Callable[[float, float, str], tuple[float, float]], count: int = 40) -> list[EarlierTrial]:
    """Trials at other rates than are searched here, and between the widths."""
    generator = np.random.default_rng(1)
    found: list[EarlierTrial] = []
    for _ in range(count):
        rate, width, kind = 10 ** generator.uniform(-5, -2), generator.uniform(0, 7), int(generator.integers(3))
        values = costs(rate, width, ["plain", "gated", "fused"][kind])
        found.append(EarlierTrial({"rate": rate, "width": width, "kind": float(kind)}, values, {}))
    return found


def run(known: Sequence[EarlierTrial], trials: int, seed: int = 0) -> list[tuple[float, float]]:
    study = optuna.create_study(
        directions=["minimize", "minimize"], sampler=SurrogateSampler(SPACE, seed=seed, earlier=known)
    )
    found: list[tuple[float, float]] = []
    for _ in range(trials):
        trial = study.ask(dict(SPACE.distributions))
        found.append(costs_of(trial.params["rate"], trial.params["width"], trial.params["kind"]))
        study.tell(trial, found[-1])
    return found


def area(costs: Sequence[tuple[float, float]]) -> float:
    """What of the box up to (20, 6) they dominate."""
    total, lowest = 0.0, 6.0
    for time, loss in sorted(costs):
        if loss < lowest and time < 20:
            total += (20 - time) * (lowest - loss)
            lowest = loss
    return total


def test_what_is_known_saves_trials_and_what_misleads_costs_few() -> None:
    without = np.mean([area(run([], 12, seed)) for seed in range(3)])
    informed = np.mean([area(run(earlier(costs_of), 6, seed)) for seed in range(3)])
    misled = np.mean([area(run(earlier(turned), 14, seed)) for seed in range(3)])
    assert informed > without, "half the trials reach more"
    assert misled > 0.95 * without


def test_an_ask_is_the_same_again() -> None:
    assert run(earlier(costs_of), 8) == run(earlier(costs_of), 8)


def test_the_same_earlier_trials_as_a_cost_that_is_maximized() -> None:
    known = [EarlierTrial(each.parameters, (-each.values[0], each.values[1]), {}) for each in earlier(costs_of)]
    prior = Prior(CodedSpace(SPACE), known, np.array([-1.0, 1.0]))
    assert prior.costs.tolist() == [list(each.values) for each in earlier(costs_of)]


@pytest.mark.parametrize(
    ("column", "number", "position"),
    [
        (Column(FloatDistribution(1e-4, 1e-2, log=True)), 1e-3, 0.5),
        (Column(FloatDistribution(1e-4, 1e-2, log=True)), 1e-5, -0.5),
        (Column(FloatDistribution(1e-4, 1e-2, log=True)), 1e9, 2.0),
        (Column(IntDistribution(0, 4)), 2.5, 0.625),
        (Column(IntDistribution(0, 4)), 6.0, 1.5),
        (Column(IntDistribution(0, 4)), -99.0, -1.0),
        (Column(IntDistribution(2, 32, log=True)), 64.0, 1.25),
        (Column(IntDistribution(3, 3)), 9.0, 0.5),
    ],
)
def test_a_number_lies_where_it_is_on_the_scale(column: Column, number: float, position: float) -> None:
    code = column.place(number)
    assert code is not None
    assert float(column.positions(np.array(code))) == pytest.approx(position)
    nearest = column.nearest(np.array([code]))
    assert column.code(column.value(float(nearest[0]))) == nearest[0], "a value of this space"


def test_another_category_is_not_known() -> None:
    space = CodedSpace(SPACE)
    codes, presence = space.place({"rate": 1e-2, "kind": 7.0})
    assert dict(zip(space.names, presence.tolist(), strict=True)) == {"rate": True, "width": False, "kind": False}
    assert np.isfinite(codes).all()
