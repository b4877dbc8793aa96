"""What a sweep will cost: from trials that are comparable, and from no others."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.orm import Session

from service.http.dependencies import Services
from service.sweeps import drafts, estimates
from service.sweeps.documents import read
from service.sweeps.schemas import CostEstimate
from tests.service.sweep_driver import Driver
from tests.service.sweep_rows import add_sweep, add_trial

DOCUMENT = """\
name: estimated
task: causal_lm
dataset: letters
model: {num_layers: {values: [1, 2]}, hidden_size: 64, attention: {num_attention_heads: 2}}
training: {steps: 240, batch_size: 16, sequence_length: 64}
inference: {batch_size: 1, sequence_length: 64}
objectives: [{metric: validation_loss, goal: minimize}]
budget: {trials: 10, parallel: 1}
"""
FIXED_SECONDS = 6.0
STEP_SECONDS = 0.05
FLOPS = 8e6


@pytest.fixture(autouse=True)
def _dataset(services: Services) -> None:
    Driver(services.database, services.settings).add_dataset()


def _estimate(services: Services, document: str = DOCUMENT) -> CostEstimate | None:
    prepared = drafts.prepare(services.database, read(document.encode(), "application/yaml", max_bytes=10_000))
    return services.database.read(lambda session: estimates.estimate(session, prepared, alive_seconds=90))


def _add_past(
    services: Services, steps: list[int], *, noise: float = 0.0, target_key: str = "onnxruntime 1 on a CPU"
) -> None:
    """Trials whose fixed time is FIXED_SECONDS, and whose training takes STEP_SECONDS a step."""

    def fill(session: Session) -> None:
        sweep = add_sweep(session)
        for number, count in enumerate(steps):
            trained = STEP_SECONDS * count * (1 + noise * (-1) ** number)
            configuration: dict[str, Any] = {
                "training": {"steps": count, "batch_size": 16, "sequence_length": 64},
                "inference": {"batch_size": 1, "sequence_length": 64},
            }
            metrics = {"flops": FLOPS, "train_seconds": trained, "device_seconds": FIXED_SECONDS + trained}
            add_trial(session, sweep, number, metrics, configuration=configuration, attempt=1, target_key=target_key)

    services.database.write(fill)


def test_the_time_of_steps_is_told_from_what_a_trial_takes_besides(services: Services) -> None:
    _add_past(services, [60, 100, 240, 300])
    found = _estimate(services)
    assert found is not None
    assert found.trial_seconds == pytest.approx(FIXED_SECONDS + 240 * STEP_SECONDS, rel=0.3)
    assert found.median_error_share == pytest.approx(0.0, abs=1e-6)


def test_trainings_of_one_step_say_nothing_of_hundreds(services: Services) -> None:
    _add_past(services, [1] * 8)
    assert _estimate(services) is None
    short = _estimate(services, DOCUMENT.replace("steps: 240", "steps: 2"))
    assert short is not None
    assert short.trial_seconds == pytest.approx(FIXED_SECONDS, rel=0.1)
    assert short.from_trials == 8


def test_times_of_tensorrt_rtx_say_nothing_of_tensorrt(services: Services) -> None:
    _add_past(services, [240] * 4, target_key="tensorrt_rtx 1.4 on a GPU")
    for runtime, from_trials in (("tensorrt_rtx", 4), ("tensorrt", None)):
        found = _estimate(services, f"{DOCUMENT}target: {{runtime: {runtime}}}\n")
        assert (found and found.from_trials) == from_trials, runtime


def test_the_error_is_that_of_trials_that_were_not_fitted(services: Services) -> None:
    _add_past(services, [240] * 4, noise=0.2)
    found = _estimate(services)
    assert found is not None
    # Of 14.4 s + 6 s and 9.6 s + 6 s, each from the mean of the other three: 1.6 s of 20.4 s more than within the fit.
    assert found.median_error_share > 0.5 * (2.4 / 20.4 + 2.4 / 15.6), "more than the error of the fit"
