"""What is predicted of a device: within its intervals, never beyond what was measured, and never silently wrong."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from layers.configuration import Configuration
from layers.parameter import Scalar
from service.scheduling.device_model.calibrated import CalibratedModel
from service.scheduling.device_model.device_model import DeviceModel, describe_model
from service.scheduling.device_model.features import Encoder, describe
from service.scheduling.device_model.measured import FEWEST_ROWS, MeasuredTrial, measured, measured_trials
from service.scheduling.device_model.space_predictions import (
    MeasuredTarget,
    predict_space,
    read_measured,
    unpredicted_metrics,
)
from service.sweeps import drafts
from tests.service.sweep_driver import Driver, Outcome, document


def _configuration(layers: int, width: int, kind: str = "MLP") -> Configuration:
    model: dict[str, Scalar] = {"num_layers": layers, "hidden_size": width, "mlp.kind": kind, "bias": True}
    return {"task": "probe", "model": model, "training": {"steps": 3}, "inference": {"batch_size": 1}}


def _trial(layers: int, width: int, kind: str = "MLP", noise: float = 0.0) -> MeasuredTrial:
    flops = layers * width**2 * 24.0
    described = describe(_configuration(layers, width, kind), {"parameter_count": flops / 2, "flops": flops})
    latency = (0.05 + flops / 1e8) * (1.2 if kind == "GatedMLP" else 1.0) * math.exp(noise)
    return MeasuredTrial(f"{layers}/{width}/{kind}", described, {"latency_ms_p50": latency})


def _trials(count: int, seed: int) -> list[MeasuredTrial]:
    source = random.Random(seed)
    return [
        _trial(
            source.randint(1, 12), source.choice([64, 128, 192, 256, 384]), source.choice(["MLP", "GatedMLP"]),
            source.gauss(0, 0.01),
        )
        for _ in range(count)
    ]  # fmt: skip


def test_latencies_of_points_that_were_not_measured_are_predicted_within_their_intervals() -> None:
    model, others = DeviceModel(_trials(32, 0)), _trials(200, 1)
    prediction = model.predict("latency_ms_p50", [each.described for each in others])
    assert prediction is not None
    values = np.array([each.metrics["latency_ms_p50"] for each in others])
    assert np.mean(np.abs(prediction.medians / values - 1)) < 0.05
    low, high = model.interval("latency_ms_p50", prediction)
    assert np.mean((low <= values) & (values <= high)) > 0.8


def test_what_is_certain_to_be_reached_is_reached() -> None:
    model, others = DeviceModel(_trials(32, 2)), _trials(300, 3)
    least = model.least("latency_ms_p50", [each.described for each in others])
    assert least is not None
    values = np.array([each.metrics["latency_ms_p50"] for each in others])
    assert np.mean(values < least) <= 0.01
    limit = float(np.median(values))
    assert np.mean(least[values > limit] > limit) > 0.5, "and it is of use"


def test_too_few_trials_say_nothing() -> None:
    model = DeviceModel(_trials(15, 4))
    assert model.predict("latency_ms_p50", [_trial(2, 64).described]) is None
    assert model.errors("latency_ms_p50") is None
    assert not model.knows("latency_ms_p50", _trial(2, 64).described)


def test_what_is_unlike_all_that_was_measured_is_not_known() -> None:
    model = DeviceModel(_trials(32, 5))
    assert model.knows("latency_ms_p50", _trial(6, 160).described)
    assert not model.knows("latency_ms_p50", _trial(6, 4096).described), "far larger"
    assert not model.knows("latency_ms_p50", _trial(6, 128, "FusedGatedMLP").described), "another kind"
    half = describe({**_configuration(6, 128), "inference": {"batch_size": 8}}, {})
    assert not model.knows("latency_ms_p50", half), "a batch that was never measured"


def test_layers_count_by_their_mean_and_training_does_not_count() -> None:
    one, other = (_configuration(2, 64) for _ in range(2))
    one["model"] |= {"layers.0.mlp.ffn_hidden_size": 64, "layers.1.mlp.ffn_hidden_size": 256}
    other["model"] |= {"layers.0.mlp.ffn_hidden_size": 128, "layers.1.mlp.ffn_hidden_size": 128}
    other["training"] = {"steps": 9}
    assert describe(one, {}) == pytest.approx(describe(other, {}))


def test_measurements_that_are_all_the_same_are_predicted() -> None:
    model = CalibratedModel(np.zeros((20, 0)), np.full(20, 3.0))
    assert model.predict(np.zeros((1, 0))).medians == pytest.approx([3.0])
    rows = [_trial(2, 64).described] * 20
    assert Encoder.of(rows).columns == ()


def _measure(configuration: Mapping[str, Any]) -> Outcome:
    model = configuration["model"]
    latency = model["num_layers"] * model["hidden_size"] / 32 + 0.25 * model["attention.num_attention_heads"]
    return "complete", {"latency_ms_p50": latency, "latency_ms_p99": 1.2 * latency, "validation_loss": 2.0}


def test_the_range_of_a_space_and_what_a_limit_leaves_are_predicted_from_measured_trials(driver: Driver) -> None:
    written = document(constraints=["latency_ms_p50 <= 8"], budget={"trials": 40})
    draft = drafts.prepare(driver.database, written).document
    read = driver.database.read(lambda session: read_measured(session, draft, project="default"))
    assert predict_space(draft, read) == [], "nothing was measured"
    sweep = driver.post(written)
    driver.run_to_the_end(sweep, _measure)
    read = driver.database.read(lambda session: read_measured(session, draft, project="default"))
    assert driver.database.read(lambda session: read_measured(session, draft, project="other")) is None
    (found,) = predict_space(draft, read)
    assert (found.metric, found.from_trials) == ("latency_ms_p50", 40)
    assert found.error_share < 0.1
    assert 1 <= found.low < found.median < found.high <= 30
    (limit,) = found.limits
    assert limit.constraint == "latency_ms_p50 <= 8"
    measured = [trial.metrics["latency_ms_p50"] <= 8 for trial in driver.trials(sweep)]
    assert limit.kept_share == pytest.approx(sum(measured) / len(measured), abs=0.25)
    target = driver.sweep(sweep).target_key or ""
    trials = driver.database.read(lambda session: measured_trials(session, target, project="default"))
    described = describe_model(target, trials)
    assert [each.metric for each in described.quantities] == ["latency_ms_p50", "latency_ms_p99"]
    assert all(each.false_rejections == 0 for each in described.quantities)


def test_a_model_is_fitted_in_one_thread(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: set[int] = set()

    def counted(self: DeviceModel, metric: str) -> None:
        threads.update(each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas")

    monkeypatch.setattr(DeviceModel, "errors", counted)
    trials = [_trial(1 + number % 4, 32) for number in range(FEWEST_ROWS)]
    with threadpool_limits(limits=2, user_api="blas"):
        describe_model("a target", trials)
        predict_space(drafts.prepare(driver.database, document()).document, MeasuredTarget("a target", trials))
    assert threads == {1}


def test_each_shape_of_a_space_is_predicted_by_itself(driver: Driver) -> None:
    written = document(constraints=["latency_ms_p50@bulk <= 16"], budget={"trials": 16})
    bulk = {"batch_size": 2, "sequence_length": 64}
    written["inference"] = {"shapes": {"chat": {"batch_size": 1, "sequence_length": 64}, "bulk": bulk}}

    def measure(configuration: Mapping[str, Any]) -> Outcome:
        _, metrics = _measure(configuration)
        at = {
            f"{name}@{shape['name']}": value * shape["batch_size"]
            for name, value in metrics.items()
            if name.startswith("latency")
            for shape in configuration["shapes"]
        }
        return "complete", {**at, "validation_loss": metrics["validation_loss"]}

    draft = drafts.prepare(driver.database, written).document
    sweep = driver.post(written)
    driver.run_to_the_end(sweep, measure)
    read = driver.database.read(lambda session: read_measured(session, draft, project="default"))
    found = {each.metric: each for each in predict_space(draft, read)}
    assert {"latency_ms_p50@chat", "latency_ms_p50@bulk"} <= found.keys()
    assert found["latency_ms_p50@bulk"].median == pytest.approx(2 * found["latency_ms_p50@chat"].median, rel=0.2)
    (limit,) = found["latency_ms_p50@bulk"].limits
    kept = [trial.metrics["latency_ms_p50@bulk"] <= 16 for trial in driver.trials(sweep)]
    assert limit.kept_share == pytest.approx(sum(kept) / len(kept), abs=0.25)


def test_prompts_and_steps_are_predicted_and_what_cannot_be_is_named(driver: Driver) -> None:
    limits = ["decode_ms_per_token_p50 <= 0.5", "prefill_ms_p99 <= 9", "latency_cv <= 0.1"]
    written = document(objectives=[{"metric": "validation_loss"}], constraints=limits)
    written["inference"] = {"mode": "generate", "batch_size": 1, "prompt_tokens": 32, "new_tokens": 32}
    draft = drafts.prepare(driver.database, written).document
    trials: list[MeasuredTrial] = []
    source = random.Random(1)
    while len(trials) < 32:
        values = draft.space.resolve(draft.space.sample(source))
        if draft.space.judge(values) is None:
            static = draft.space.static_metrics(values)
            cost = static["flops"] / 1e7
            metrics = {"latency_ms_p50": 9.0, "prefill_ms_p50": cost, "decode_ms_per_token_p50": cost / 8}
            trials.append(measured(str(len(trials)), draft.space.configuration(values), {**static, **metrics}))
    target = MeasuredTarget("a target", trials)
    found = predict_space(draft, target)
    assert [each.metric for each in found] == ["prefill_ms_p50", "decode_ms_per_token_p50"]
    assert all(each.error_share < 0.1 for each in found)
    kept = sum(trial.metrics["decode_ms_per_token_p50"] <= 0.5 for trial in trials) / len(trials)
    (limit,) = found[1].limits
    assert limit.kept_share == pytest.approx(kept, abs=0.25)
    reasons = {each.metric: each.reason for each in unpredicted_metrics(draft, target, found)}
    assert reasons == {
        "prefill_ms_p99": "a prediction takes 16 trials of the task on one target that measured it; there are 0",
        "latency_cv": "no model of a device predicts it",
    }
    nothing = [each.metric for each in unpredicted_metrics(draft, None, [])]
    assert nothing == ["decode_ms_per_token_p50", "prefill_ms_p99", "latency_cv"]


def test_columns_that_say_the_same_count_once_and_are_not_known_where_they_no_longer_do() -> None:
    rows = [{"width": each, "embedding": 2 * each, "kind=A": each % 2, "kind=B": 1 - each % 2} for each in range(4)]
    encoder = Encoder.of(rows)
    assert encoder.columns == ("embedding", "kind=A")
    assert all(map(encoder.knows, rows))
    assert encoder.knows({"width": 1.5, "embedding": 3.0, "kind=A": 1.0})
    assert not encoder.knows({"width": 1.0, "embedding": 3.0, "kind=A": 1.0}), "an embedding of another width"
    assert not encoder.knows({"width": 1.5, "embedding": 3.0}), "neither of the kinds"
