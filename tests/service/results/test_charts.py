from __future__ import annotations

import math
import re
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.leases.schemas import CurvePoint
from service.results import charts
from service.results.axes import Axis
from service.results.charts import Point

finite = st.floats(-1e12, 1e12).filter(lambda value: value == 0 or abs(value) > 1e-9)


@given(
    st.lists(finite, min_size=1, max_size=30), st.sampled_from(["validation_loss", "memory_bytes", "parameter_count"])
)
def test_every_value_and_every_tick_lies_on_the_axis(values, name):
    axis = Axis.over(name, values, 80, 740)
    assert all(80 <= axis.at(value) <= 740 for value in values)
    assert all(79.9 <= tick.position <= 740.1 for tick in axis.ticks)
    assert len(axis.ticks) <= 10


@given(st.lists(finite, min_size=2, max_size=30, unique=True))
def test_order_is_kept(values):
    axis = Axis.over("validation_loss", values, 400, 20)
    positions = [axis.at(value) for value in sorted(values)]
    assert positions == sorted(positions, reverse=True)


def test_wide_ranges_are_logarithmic_and_narrow_ones_are_not():
    assert Axis.over("latency_ms_p50", [0.01, 10], 0, 100).log
    assert "log scale" in Axis.over("latency_ms_p50", [0.01, 10], 0, 100).title
    assert not Axis.over("latency_ms_p50", [1, 10], 0, 100).log
    assert not Axis.over("precision_gap", [-0.01, 10], 0, 100).log


@pytest.mark.parametrize(
    ("name", "values", "labels", "title"),
    [
        ("validation_loss", [1.52, 2.2], ["1.6", "1.8", "2.0", "2.2"], "validation loss (nats)"),
        ("memory_bytes", [2**20, 4 * 2**20], ["1", "2", "3", "4"], "memory (MiB)"),
        ("parameter_count", [1e5, 1e7], ["0.1", "0.3", "1", "3", "10"], "parameters (M), log scale"),
        ("accuracy", [0.9, 0.95], ["90", "92", "94"], "accuracy (%)"),
    ],
)
def test_ticks_are_round_in_the_metric_s_unit(name, values, labels, title):
    assert [tick.label for tick in Axis.over(name, values, 0, 100).ticks] == labels
    assert Axis.over(name, values, 0, 100).title == title


def point(number, x, y, **facts):
    given_facts = {"on_front": False, "feasible": True, "recommended": False} | facts
    return Point(trial=f"t{number}", number=number, x_value=x, y_value=y, **given_facts)


def test_the_edge_steps_through_what_is_best_of_the_two():
    points = [point(0, 1, 5), point(1, 2, 3), point(2, 3, 4), point(3, 4, 1), point(4, 0.5, 0.5, feasible=False)]
    goals = {"latency_ms_p50": "minimize", "validation_loss": "minimize"}
    scatter = charts.scatter(points, "latency_ms_p50", "validation_loss", goals)
    assert scatter is not None
    assert len(re.findall(r"[HV]", scatter.front_path)) == 4, "trials 0, 1 and 3; neither the worse nor the infeasible"
    upward = charts.scatter(
        points, "latency_ms_p50", "accuracy", {"latency_ms_p50": "minimize", "accuracy": "maximize"}
    )
    assert upward is not None
    assert upward.front_path == "", "trial 0 is the best of both"
    assert charts.scatter(points, "number", "validation_loss", {"validation_loss": "minimize"}).front_path == ""


def test_what_matters_is_drawn_last():
    points = [
        point(0, 1, 1, recommended=True, on_front=True),
        point(1, 2, 2, on_front=True),
        point(2, 3, 3),
        point(3, 4, 4, feasible=False),
    ]
    scatter = charts.scatter(points, "latency_ms_p50", "validation_loss", {})
    assert [mark.kind for mark in scatter.marks] == ["plain", "infeasible", "front", "recommended"]


def test_nothing_to_draw_is_no_drawing():
    assert charts.scatter([], "latency_ms_p50", "validation_loss", {}) is None
    assert charts.curve([CurvePoint(step=0)], {}) is None
    assert charts.histogram([1.0], {}) is None
    assert charts.segments({}) == []


def test_one_point_and_equal_points_can_be_drawn():
    for points in ([point(0, 1, 1)], [point(0, 0, 0), point(1, 0, 0)]):
        scatter = charts.scatter(points, "latency_ms_p50", "validation_loss", {})
        assert all(math.isfinite(mark.x) and math.isfinite(mark.y) for mark in scatter.marks)
    assert charts.histogram([2.0] * 50, {"p50": 2.0}) is not None


def test_a_curve_leaves_out_what_was_not_measured_and_shows_the_baselines_in_range():
    points = [
        CurvePoint(step=step, training_loss=5 - step / 10, validation_loss=5.0 if step % 20 == 0 else None)
        for step in range(0, 41, 10)
    ]
    curve = charts.curve(points, {"uniform": 9.0, "bigram": 2.5})
    assert [(line.name, len(line.dots)) for line in curve.lines] == [("training_loss", 5), ("validation_loss", 3)]
    assert [name for name, _ in curve.baselines] == ["bigram"]


@given(st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=300))
def test_a_histogram_counts_the_samples_it_shows(samples):
    histogram = charts.histogram(samples, {"p50": sorted(samples)[len(samples) // 2]})
    counted = sum(int(re.search(r": (\d+) samples", bar.title).group(1)) for bar in histogram.bars)
    assert counted + histogram.beyond == len(samples)
    near = sum(sample <= charts.SLOW_RATIO * statistics.median(samples) for sample in samples)
    assert counted >= near * 0.99 - 1


def test_segments_fill_the_bar_in_proportion():
    pieces = charts.segments({"a": 1.0, "b": 3.0, "c": 0.0})
    assert [(piece.name, piece.x, piece.width) for piece in pieces] == [("a", 0.0, 250.0), ("b", 250.0, 750.0)]
    assert charts.segments({"a": 1.0}, total=4.0)[0].width == 250.0
