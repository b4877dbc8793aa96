"""The surrogate's parts: codes, groups drawn level first, expected improvement, models."""

from __future__ import annotations

import numpy as np
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from service.scheduling.surrogate.acquisition import Improvement, Prediction, non_dominated, reference_point
from service.scheduling.surrogate.ahead import count_ahead
from service.scheduling.surrogate.columns import Column
from service.scheduling.surrogate.features import Features
from service.scheduling.surrogate.gaussian_process import GaussianProcess, fit_hyperparameters
from service.scheduling.surrogate.level_first import draw_group
from service.scheduling.surrogate.objectives import Objective
from service.scheduling.surrogate.selection import Selection
from service.scheduling.surrogate.space import CodedSpace, SearchSpace

DISTRIBUTIONS: list[BaseDistribution] = [
    IntDistribution(2, 12, step=2),
    IntDistribution(1, 64, log=True),
    FloatDistribution(1e-5, 1e-1, log=True),
    FloatDistribution(-1.0, 1.0),
    FloatDistribution(0.0, 1.0, step=0.25),
    CategoricalDistribution(["a", "b", None]),
    IntDistribution(3, 3),
]


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=str)
def test_codes_are_values_of_the_distribution_and_come_back(distribution: BaseDistribution) -> None:
    column, generator = Column(distribution), np.random.default_rng(0)
    codes = column.draw(generator, 50)
    for code in np.concatenate([codes, column.neighbours(codes, generator)]):
        value = column.value(float(code))
        assert distribution._contains(distribution.to_internal_repr(value))
        assert column.code(value) == pytest.approx(code, abs=1e-9)
    positions = column.positions(codes)
    assert positions.min() >= 0
    assert positions.max() <= 1


def test_parameters_that_differ_in_the_layer_alone_are_a_group() -> None:
    names = ["layers.0.mlp.size", "layers.1.mlp.size", "layers.0.attention.heads", "hidden", "layers.10.mlp.size"]
    space = CodedSpace(SearchSpace({name: IntDistribution(0, 3) for name in names}))
    assert [group.tolist() for group in space.groups] == [[0, 1, 4]]


def test_levels_of_a_group_are_drawn_as_far_apart_as_they_can_be() -> None:
    column, generator = Column(IntDistribution(0, 4)), np.random.default_rng(0)
    means = draw_group(column, 400, 12, generator).mean(axis=1) / 4
    each_by_itself = column.draw(generator, (400, 12)).mean(axis=1) / 4
    assert means.std() > 2 * each_by_itself.std()
    assert means.min() < 0.1
    assert means.max() > 0.9


def test_shares_of_categories_are_drawn_before_who_has_which() -> None:
    codes = draw_group(Column(CategoricalDistribution(["a", "b", "c"])), 300, 12, np.random.default_rng(0))
    shares = (codes == 0).mean(axis=1)
    assert shares.min() < 0.05
    assert shares.max() > 0.8


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_equal_rows_count_once_in_a_front(objectives: int) -> None:
    costs = np.array([[1.0, 2.0, 0.0], [2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [2.0, 2.0, 0.0]])[:, :objectives]
    assert non_dominated(costs).tolist() == [True, objectives > 1, False, False]


@pytest.mark.parametrize("objectives", [2, 3])
def test_a_front_is_what_no_row_betters(objectives: int) -> None:
    costs = np.random.default_rng(0).integers(0, 6, (60, objectives)).astype(float)
    kept = costs[non_dominated(costs)]
    assert len(np.unique(kept, axis=0)) == len(kept)
    for row in costs:
        is_bettered = ((costs <= row).all(axis=1) & (costs < row).any(axis=1)).any()
        assert (kept == row).all(axis=1).any() == (not is_bettered)


@pytest.mark.parametrize("count", [2, 3])
def test_a_point_adds_less_once_it_or_one_that_dominates_it_is_counted(count: int) -> None:
    objectives = [Objective(False, False)] * count
    predicted = Prediction(np.array([[0.3] * count, [0.5] * count]), np.full((2, count), 0.01))
    improvement = Improvement(objectives, np.full((1, count), 0.8), np.ones(count), predicted)
    before = improvement.of(predicted)
    improvement.add(np.full(count, 0.3))
    assert (improvement.of(predicted) < 0.1 * before).all()


@pytest.mark.parametrize("is_log", [False, True])
@pytest.mark.parametrize("is_maximized", [False, True])
def test_expected_improvement_is_the_mean_of_what_is_gained(is_maximized: bool, is_log: bool) -> None:
    first, second = Objective(is_maximized, is_log), Objective(False, False)
    generator = np.random.default_rng(0)
    predicted = Prediction(np.array([[0.2, 0.4]]), np.array([[0.3, 0.2]]))
    drawn = predicted.means + predicted.deviations * generator.standard_normal((40_000, 2))
    costs = np.stack([first.cost(drawn[:, 0]), second.cost(drawn[:, 1])], axis=1)
    front = np.quantile(costs, [0.4, 0.7], axis=0)
    front = np.stack([front[:, 0], front[::-1, 1]], axis=1)
    reference = reference_point(costs[:1000])
    found = Improvement([first, second], front, reference, predicted).of(predicted)[0]
    gains = [_area(np.vstack([front, row]), reference) - _area(front, reference) for row in costs]
    assert found == pytest.approx(float(np.mean(gains)), rel=0.03)


def test_three_objectives_prefer_what_dominates_more() -> None:
    objectives = [Objective(False, False)] * 3
    means = np.array([[0.2, 0.2, 0.2], [0.5, 0.5, 0.5], [0.9, 0.9, 0.9]])
    front, reference = np.array([[0.6, 0.6, 0.6]]), np.ones(3)
    predicted = Prediction(means, np.full((3, 3), 0.01))
    worth = Improvement(objectives, front, reference, predicted).of(predicted)
    assert worth[0] > 2 * worth[1]
    assert worth[1] > worth[2]


def test_a_process_predicts_what_it_saw_and_knows_where_it_saw_nothing() -> None:
    generator = np.random.default_rng(0)
    seen = Features(generator.random((40, 3)) * [0.5, 1, 1], np.empty((40, 0)))
    values = 2 * seen.whole[:, 0] + np.sin(3 * seen.whole[:, 1])
    values = (values - values.mean()) / values.std()
    process = GaussianProcess(seen, values, fit_hyperparameters(seen, values))
    means, deviations = process.predict(seen)
    assert np.abs(means - values).max() < 0.1
    _, far = process.predict(Features(np.array([[1.0, 0.5, 0.5]]), np.empty((1, 0))))
    assert far[0] > 2 * np.median(deviations)


def test_what_is_known_to_be_uncertain_is_believed_less_than_what_is_known_to_be_sure() -> None:
    places = np.linspace(0, 1, 12)[:, None]
    values = 2.0 * places[:, 0] - 1.0
    values[6] += 2.0
    features = Features(places, np.empty((12, 0)))

    def predicted(deviation: float) -> float:
        deviations = np.full(12, np.nan)
        deviations[6] = deviation
        process = GaussianProcess(features, values, fit_hyperparameters(features, values, deviations), deviations)
        mean, _ = process.predict(Features(places[[6]], np.empty((1, 0))))
        return float(mean[0])

    assert predicted(10.0) == pytest.approx(values[6] - 2.0, abs=0.1)
    assert predicted(1e-3) == pytest.approx(values[6], abs=0.1)


def test_without_known_deviations_a_process_is_what_it_was() -> None:
    generator = np.random.default_rng(0)
    features, values = Features(generator.random((20, 3)), np.empty((20, 0))), generator.standard_normal(20)
    plain = fit_hyperparameters(features, values)
    assert (fit_hyperparameters(features, values, np.full(20, np.nan)) == plain).all()


def test_points_that_are_the_same_but_for_rounding_are_modelled() -> None:
    whole = np.repeat(np.random.default_rng(0).random((4, 2)), 30, axis=0)
    whole += 1e-13 * np.random.default_rng(1).random(whole.shape)
    seen, values = Features(whole, np.empty((120, 0))), np.repeat([1.0, -1.0, 0.5, -0.5], 30)
    means, _ = GaussianProcess(seen, values, fit_hyperparameters(seen, values)).predict(seen)
    assert np.abs(means - values).max() < 0.1


def test_what_is_expected_changes_no_prediction_and_leaves_nothing_to_learn() -> None:
    generator = np.random.default_rng(0)
    seen, elsewhere = (Features(generator.random((20, 2)), generator.random((20, 4))) for _ in range(2))
    values = np.sin(4 * seen.whole[:, 0]) + seen.layers.mean(axis=1)
    process = GaussianProcess(seen, values, np.log([0.5, 0.5, 0.7, 0.7, 0.3, 0.2, 0.05]))
    means, deviations = process.predict(elsewhere)
    process.expect(elsewhere)
    told = GaussianProcess(
        seen.with_more(elsewhere), np.append(values, means), np.log([0.5, 0.5, 0.7, 0.7, 0.3, 0.2, 0.05])
    )
    for found, wanted in zip(process.predict(elsewhere), told.predict(elsewhere), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert (process.predict(elsewhere)[1] < deviations).all()


@pytest.mark.parametrize("layers", [0, 4])
def test_many_points_are_predicted_as_each_alone(layers: int) -> None:
    generator = np.random.default_rng(0)
    seen, many = (Features(generator.random((count, 2)), generator.random((count, layers))) for count in (150, 300))
    values = np.sin(4 * seen.whole[:, 0])
    process = GaussianProcess(seen, values, np.log([0.5, 0.5, 0.7, 0.7, 0.3, 0.2, 0.05]))
    process.expect(many.of(slice(0, 9)))
    means, deviations = process.predict(many)
    each = [process.predict(many.of(slice(row, row + 1))) for row in range(300)]
    np.testing.assert_allclose(means, np.concatenate([mean for mean, _ in each]), atol=1e-9)
    np.testing.assert_allclose(deviations, np.concatenate([deviation for _, deviation in each]), atol=1e-7)
    np.testing.assert_allclose(process.mean(many), means, atol=1e-12)
    assert [len(found) for found in process.predict(many.of(slice(0)))] == [0, 0]


def test_more_points_are_chosen_together_the_more_run_and_the_more_is_known() -> None:
    assert count_ahead(waiting=0, known=10_000) == 1, "alone, each suggestion knows every result"
    assert count_ahead(waiting=8, known=20) < count_ahead(waiting=8, known=1_000)
    assert count_ahead(waiting=1, known=10_000) < count_ahead(waiting=8, known=10_000)
    assert count_ahead(waiting=8, known=10_000) < count_ahead(waiting=1_600, known=0)


def test_points_are_chosen_apart_from_each_other_and_those_that_are_not_allowed_never() -> None:
    objectives = [Objective(False, False)] * 2
    means = np.array([[0.2, 0.6], [0.2, 0.6], [0.6, 0.2], [0.9, 0.9]])
    predicted, places = Prediction(means, np.full((4, 2), 0.05)), Features(means, np.empty((4, 0)))
    improvement = Improvement(objectives, np.empty((0, 2)), np.ones(2), predicted)
    selection = Selection(objectives, improvement, predicted, np.ones(4), places, places.of(np.array([3])))
    assert selection.choose(3, lambda row: row != 2).tolist() == [0, 1, 3]
    improvement = Improvement(objectives, np.empty((0, 2)), np.ones(2), predicted)
    selection = Selection(objectives, improvement, predicted, np.ones(4), places, places.of(np.array([3])))
    assert selection.choose(2, lambda row: True).tolist() == [0, 2]


def _area(costs: np.ndarray, reference: np.ndarray) -> float:
    total, lowest = 0.0, float(reference[1])
    for first, second in sorted(map(tuple, costs.tolist())):
        if second < lowest and first < reference[0]:
            total += (float(reference[0]) - first) * (lowest - second)
            lowest = second
    return total
