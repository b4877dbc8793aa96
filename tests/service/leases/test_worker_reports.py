"""What a worker says is stored where it can be so and is the worker's to say, and is refused with words where not."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from itertools import pairwise
from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from layers.declarations.inference.shape_reader import MAX_NAME
from layers.declarations.inference.shapes import MAX_SHAPES, NAME, SHAPES
from layers.expressions.metric_names import MetricNames
from layers.metrics import LARGEST, METRICS
from service.database.models import Report, Sweep, Trial
from service.database.sessions import Database
from service.http.dependencies import Services
from service.leases import curves, queue
from service.leases.phases import PHASES
from service.leases.worker_reports import MOST_TRIES
from tests.service.rows import Rows
from tests.service.sweep_rows import (
    add_attempt,
    add_measurement,
    add_sweep,
    add_trial,
    add_worker,
    complete_configuration,
)
from workers.trial.record import OF_EACH_SHAPE


class Attempt:
    """An attempt of a trial whose service says 1,000 parameters."""

    def __init__(
        self, client: TestClient, rows: Rows, *constraints: str, inference: Mapping[str, Any] | None = None
    ) -> None:
        self.client = client
        self.sweep = rows.sweep(1, constraints=constraints)
        document = {"constraints": list(constraints), "inference": inference or {}}
        statements = (_OWN_FIGURES, sa.update(Sweep).values(document=document))
        rows.database.write(lambda session: [session.execute(each) for each in statements] and None)
        lease = client.post("/v1/leases", json={"worker": rows.worker()}).json()
        self.trial = lease["trial"]
        self.path = f"/v1/leases/{self.trial}/1"

    def report(self, **body: Any) -> Any:
        return self.client.post(f"{self.path}:report", json=body)

    def finish(self, outcome: str = "complete", **body: Any) -> Any:
        return self.client.post(f"{self.path}:finish", json={"outcome": outcome, **body})

    def shown(self) -> dict[str, Any]:
        return self.client.get(f"/v1/trials/{self.trial}").json()


_OWN_FIGURES = sa.update(Trial).values(metrics={"parameter_count": 1000, "flops": 5e6})


@pytest.fixture
def attempt(client: TestClient, served_rows: Rows) -> Attempt:
    return Attempt(client, served_rows)


def _refused(answer: Any, pointer: str) -> str:
    """What is said of the place that is wrong."""
    assert answer.status_code == 422, answer.text
    errors = {error["pointer"]: f"{error['detail']}; {error['remedy']}" for error in answer.json()["errors"]}
    assert set(errors) == {pointer}, errors
    return errors[pointer]


def test_every_metric_declares_what_is_possible() -> None:
    for name, metric in METRICS.items():
        assert metric.possible(1.0), name
        assert not metric.possible(1e308), name
        assert metric.possible(-0.5) == name.endswith("_gap"), name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("latency_ms_p50", -5),
        ("latency_ms_p99", -1e308),
        ("memory_bytes", -1),
        ("validation_loss", 1e308),
        ("validation_loss", -0.1),
        ("generalization_gap", -1e308),
        ("accuracy", 5),
        ("throughput_per_s", 1e31),
        ("build_seconds", -0.1),
    ],
)
def test_a_metric_that_cannot_be_is_refused(attempt: Attempt, name: str, value: float) -> None:
    metrics = {"latency_ms_p50": 1.0, name: value}
    assert "between" in _refused(attempt.finish(metrics=metrics), f"/metrics/{name}")
    offered = attempt.client.post(f"{attempt.path}:offer", json={"metrics": metrics})
    assert "between" in _refused(offered, f"/metrics/{name}")
    assert attempt.finish(metrics={"latency_ms_p50": 1.0, "validation_loss": -1e-8}).status_code == 200


def test_the_service_s_own_figures_may_be_repeated_and_not_changed(attempt: Attempt) -> None:
    for name, value in (("parameter_count", 999), ("flops", 0)):
        refused = attempt.finish(metrics={"latency_ms_p50": 1.0, name: value})
        assert "the service" in _refused(refused, f"/metrics/{name}")
    repeated = {"latency_ms_p50": 1.0, "parameter_count": 1000.0, "flops": 5000000}
    assert attempt.finish(metrics=repeated).status_code == 200
    assert attempt.shown()["metrics"] == {"latency_ms_p50": 1.0, "parameter_count": 1000, "flops": 5e6}


def test_the_test_split_s_loss_is_of_confirmations(attempt: Attempt) -> None:
    refused = attempt.finish(metrics={"latency_ms_p50": 1.0, "test_loss": 1.0})
    assert "confirmation" in _refused(refused, "/metrics/test_loss")


@pytest.mark.parametrize("outcome", ["infeasible", "pruned", "failed"])
@pytest.mark.parametrize("reason", [None, "", "  "])
def test_what_is_not_complete_says_why(attempt: Attempt, outcome: str, reason: str | None) -> None:
    assert outcome in _refused(attempt.finish(outcome, reason=reason), "/reason")
    assert attempt.finish(outcome, reason="too slow").status_code == 200


@pytest.fixture
def bounded(client: TestClient, served_rows: Rows) -> Attempt:
    """An attempt whose sweep bounds what a device can do, and how good the model is."""
    bounds = ("latency_ms_p50 <= 2 * hidden_size / 64", "flops / latency_ms_p50 >= 1e6", "validation_loss <= 1")
    return Attempt(client, served_rows, *bounds)


def test_a_report_s_metrics_are_judged_by_the_hardware_constraints(bounded: Attempt) -> None:
    kept = bounded.report(phase="measure", metrics={"latency_ms_p50": 2.0, "validation_loss": 5.0}).json()
    assert (kept["action"], kept["reason"]) == ("continue", None)
    broken = bounded.report(metrics={"latency_ms_p50": 8.0, "memory_bytes": 1e6}).json()
    assert broken["action"] == "infeasible"
    assert "latency_ms_p50 <= 2 * hidden_size / 64 is broken by 6 (latency_ms_p50 is 8)" in broken["reason"]
    assert "flops / latency_ms_p50 >= 1e6 is broken by" in broken["reason"]
    assert "validation_loss" not in broken["reason"]
    assert bounded.report(log="nothing was measured since").json()["action"] == "continue"
    finished = bounded.finish("infeasible", reason=broken["reason"], metrics={"latency_ms_p50": 8.0})
    assert finished.status_code == 200, finished.text
    shown = bounded.shown()
    assert (shown["state"], shown["reason"]) == ("infeasible", broken["reason"])
    assert shown["metrics"] == {"latency_ms_p50": 8.0, "parameter_count": 1000, "flops": 5e6}


@pytest.mark.parametrize("entered", [("build", "train", "remeasure"), ("train", "build", "measure")])
def test_what_is_trained_is_judged_when_it_ends(bounded: Attempt, entered: tuple[str, ...]) -> None:
    for phase in entered[:-2]:
        bounded.report(phase=phase)
    for phase in entered[entered.index("train") :]:
        assert bounded.report(phase=phase, metrics={"latency_ms_p50": 8.0}).json()["action"] == "continue"
    assert bounded.finish(metrics={"latency_ms_p50": 8.0, "validation_loss": 0.5}).json()["feasible"] is False


def test_a_report_s_metrics_are_those_of_a_finish(bounded: Attempt) -> None:
    assert "between" in _refused(bounded.report(metrics={"latency_ms_p50": -1.0}), "/metrics/latency_ms_p50")
    assert "one of" in _refused(bounded.report(metrics={"speed": 1.0}), "/metrics/speed")
    assert "one of" in _refused(bounded.report(metrics={"tokens/s~": 1.0}), "/metrics/tokens~1s~0")
    assert "the service" in _refused(bounded.report(phase="train", metrics={"flops": 1.0}), "/metrics/flops")
    assert bounded.shown()["phase"] is None, "what is refused changes nothing"


def test_a_cancelled_attempt_learns_why(bounded: Attempt) -> None:
    bounded.client.post(f"/v1/sweeps/{bounded.sweep}:cancel")
    told = bounded.report(metrics={"latency_ms_p50": 8.0}).json()
    assert (told["action"], told["reason"]) == ("cancel", bounded.shown()["reason"])


def test_phases_come_in_their_order_and_a_repeated_report_changes_nothing(attempt: Attempt) -> None:
    for phase in ("check", "train", "train", "evaluate"):
        assert attempt.report(phase=phase).status_code == 200
    for phase in ("build", "train", "remeasure"):
        assert "evaluate" in _refused(attempt.report(phase=phase), "/phase")
    assert attempt.report(phase="finish").status_code == 200
    phases = [each["phase"] for each in attempt.shown()["attempts"][0]["phases"]]
    assert phases == ["check", "train", "evaluate", "finish"] == [each for each in PHASES if each in phases]


TRAINED_FIRST = ("check", "train", "quantize", "build", "measure", "evaluate", "finish")


def test_phases_may_come_in_the_order_in_which_training_is_first(attempt: Attempt) -> None:
    for phase in TRAINED_FIRST:
        assert attempt.report(phase=phase).status_code == 200
    assert [each["phase"] for each in attempt.shown()["attempts"][0]["phases"]] == list(TRAINED_FIRST)


def test_the_orders_are_not_mixed(attempt: Attempt) -> None:
    for phase in ("check", "train", "build"):
        assert attempt.report(phase=phase).status_code == 200
    for phase in ("rebuild", "remeasure", "quantize", "train"):
        assert "check, train, quantize, build" in _refused(attempt.report(phase=phase), "/phase")
    # The next try of the same attempt may be in the other order.
    for phase in ("check", "build", "train", "rebuild"):
        assert attempt.report(phase=phase).status_code == 200
    _refused(attempt.report(phase="build"), "/phase")


def test_an_attempt_whose_child_crashed_begins_anew(attempt: Attempt) -> None:
    tried = ["check", "build", "train"]
    for phase in [*tried, *tried, "finish"]:
        assert attempt.report(phase=phase, log=phase).status_code == 200
    shown = attempt.shown()["attempts"][0]
    assert [each["phase"] for each in shown["phases"]] == [*tried, *tried, "finish"]
    assert attempt.client.get(f"/trials/{attempt.trial}").status_code == 200


def test_an_attempt_does_not_begin_anew_for_ever(attempt: Attempt) -> None:
    for _ in range(MOST_TRIES):
        assert attempt.report(phase="check").status_code == 200
        assert attempt.report(phase="build").status_code == 200
    assert "release" in attempt.report(phase="check").text
    assert len(attempt.shown()["attempts"][0]["phases"]) == 2 * MOST_TRIES


def test_another_attempt_begins_with_the_first_phase_again(attempt: Attempt, served_rows: Rows) -> None:
    attempt.report(phase="evaluate")
    attempt.client.post(f"{attempt.path}:release", json={"reason": "the worker drains"})
    lease = attempt.client.post("/v1/leases", json={"worker": served_rows.worker()}).json()
    again = attempt.client.post(f"/v1/leases/{lease['trial']}/2:report", json={"phase": "check"})
    assert again.status_code == 200


def test_the_newest_attempts_of_a_trial_are_shown(client: TestClient, served_rows: Rows) -> None:
    served_rows.sweep(1)
    worker = served_rows.worker()
    for number in range(1, 24):
        lease = client.post("/v1/leases", json={"worker": worker}).json()
        assert lease["attempt"] == number
        # After ten attempts that nobody was charged for, the next ones are charged.
        served_rows.update(Trial, lease["trial"], max_attempts=100)
        path = f"/v1/leases/{lease['trial']}/{number}"
        client.post(f"{path}:report", json={"log": "x" * 60_000})
        assert client.post(f"{path}:release", json={"reason": "the worker drains"}).status_code == 200
    shown = client.get(f"/v1/trials/{lease['trial']}").json()["attempts"]
    assert [attempt["attempt"] for attempt in shown] == list(range(4, 24))
    assert client.get(f"/trials/{lease['trial']}").status_code == 200


def test_everything_that_is_measured_at_as_many_shapes_as_there_may_be_is_stored(
    client: TestClient, served_rows: Rows
) -> None:
    names = [f"{'x' * (MAX_NAME - 1)}{number}" for number in range(MAX_SHAPES)]
    shapes = [{NAME: name, "batch_size": number} for number, name in enumerate(names, 1)]
    attempt = Attempt(client, served_rows, inference={SHAPES: shapes})
    metrics = {name: 0.5 for name in MetricNames(tuple(names)) if METRICS[name.partition("@")[0]].source == "worker"}
    noise = {name: {"low": 0.4, "high": 0.6} for name in metrics}
    at_shapes = {f"{made}@{name}": {"seen": 1} for made in OF_EACH_SHAPE for name in names}
    said = attempt.report(phase="check", metrics=metrics, noise=noise)
    assert said.status_code == 200, said.text
    measurements = {**at_shapes, "training": {}, "cost": {}}
    said = attempt.finish("failed", reason="x", metrics=metrics, noise=noise, measurements=measurements)
    assert said.status_code == 200, said.text
    shown = attempt.shown()
    assert metrics.items() <= shown["metrics"].items()
    assert at_shapes.items() <= shown["measurements"].items()


def test_lists_and_names_end(attempt: Attempt) -> None:
    assert "at most 4,096" in _refused(attempt.report(progress={"text": "x" * 5000}), "/progress")
    too_many = {f"measurement {number}": {} for number in range(129)}
    assert "at most 128" in _refused(attempt.finish("failed", reason="x", measurements=too_many), "/measurements")
    losses = [{"step": step} for step in range(1001)]
    assert "1000" in _refused(attempt.report(losses=losses), "/losses")
    refused = attempt.report(losses=[{"step": 1}, {"step": 2, "training_loss": 1e308}])
    assert "between" in _refused(refused, "/losses/1/training_loss")
    assert attempt.shown()["curve"] == []


@pytest.mark.parametrize(
    ("place", "value", "pointer"),
    [
        ("dtypes", ["float32", "fp32"], "/targets/0/dtypes/1"),
        ("dtypes", ["float32"] * 17, "/targets/0/dtypes"),
        ("lacks", {f"feature {number}": "" for number in range(257)}, "/targets/0/lacks"),
        ("build_options", ["x" * 129], "/targets/0/build_options/0"),
        ("quantizations", ["int8"] * 17, "/targets/0/quantizations"),
    ],
)
def test_a_target_is_described_in_known_and_bounded_words(
    client: TestClient, place: str, value: Any, pointer: str
) -> None:
    target = {
        "runtime": "onnxruntime",
        "version": "1.32.0",
        "device_model": "CPU",
        "opset": 23,
        "dtypes": ["float32"],
        "device_memory_bytes": 1,
        place: value,
    }
    device = {"kind": "cpu", "uuid": "cpu-1", "model": "CPU", "memory_bytes": 1}
    _refused(client.post("/v1/workers", json={"name": "w", "device": device, "targets": [target]}), pointer)


def test_a_long_curve_is_kept_and_shown_in_part(attempt: Attempt) -> None:
    """A point a step, and a validation loss at each hundredth, as with `eval_every: 100`."""
    steps = 12_000
    for first in range(1, steps, 1000):
        losses = [
            {"step": step, "training_loss": 1 / step} | ({"validation_loss": 2 / step} if step % 100 == 0 else {})
            for step in range(first, first + 1000)
        ]
        assert attempt.report(losses=losses).status_code == 200
    curve = attempt.shown()["curve"]
    found = [point["step"] for point in curve]
    assert found == sorted(found)
    assert (found[0], found[-1]) == (1, steps)
    assert 500 <= len(found) <= curves.MOST_POINTS
    assert max(after - before for before, after in pairwise(found)) <= 3 * steps / curves.SHOWN_POINTS
    validated = [point["step"] for point in curve if point["validation_loss"] is not None]
    assert validated == list(range(100, steps + 1, 100))


def test_a_stored_curve_of_any_length_is_shown_in_part(database: Database, rows: Rows) -> None:
    """One of before there was a bound."""
    rows.sweep(1)
    worker = rows.worker()
    lease = database.write(lambda session: queue.claim(session, worker, 30))
    assert lease is not None

    def fill(session: Session) -> None:
        each = {"trial_id": lease.trial, "attempt": 1, "created_at": 1.0}
        points = [each | {"step": 7 * n, "values": {"training_loss": 1.0, "validation_loss": 1.0}} for n in range(9000)]
        session.execute(sa.insert(Report), points)

    database.write(fill)
    curve = database.read(lambda session: curves.read(session, lease.trial, 1))
    assert len(curve) <= curves.SHOWN_POINTS + 1
    assert (curve[0].step, curve[-1].step) == (0, 7 * 8999)


@pytest.fixture
def impossible(client: TestClient, services: Services, request: pytest.FixtureRequest) -> tuple[str, str]:
    """A sweep with rows of before there was a range: half of its trials say a value for every metric and loss."""

    def fill(session: Session) -> tuple[str, str]:
        sweep = add_sweep(session, state="completed", started_at=1.0, ended_at=2.0)
        worker = add_worker(session)
        trials: list[Trial] = []
        for number in range(12):
            says = float(request.param)
            metrics = dict.fromkeys(METRICS, 1.0 + number / 20 if number % 2 else says)
            parameters = {"num_layers": number % 3 + 1, "hidden_size": 64}
            configuration = complete_configuration(number % 3 + 1)
            trial = add_trial(session, sweep, number, metrics, parameters=parameters, configuration=configuration)
            trial.pareto_rank = 1 + number // 8
            add_attempt(session, trial, worker)
            blocks = {"validation": {"mean": [says] * 8, "weight": [1.0] * 8}}
            add_measurement(session, trial, "loss_blocks", blocks)
            add_measurement(session, trial, "latency_samples_ms", {"samples_ms": [1.0, says, 2.0, says, 3.0]})
            trials.append(trial)
        for report in session.scalars(sa.select(Report).where(Report.step > 0)):
            report.values = {"training_loss": says, "validation_loss": -says, "seconds": says}
        session.flush()
        return sweep.id, trials[0].id

    return services.database.write(fill)


@pytest.mark.parametrize("impossible", [1e308, -1e308, LARGEST, 5e-324], indirect=True)
def test_stored_figures_beyond_what_is_possible_are_shown(client: TestClient, impossible: tuple[str, str]) -> None:
    sweep, trial = impossible
    broken: dict[str, str] = {}
    for path in (
        f"/sweeps/{sweep}",
        f"/sweeps/{sweep}?x=validation_loss&y=memory_bytes",
        f"/sweeps/{sweep}/compare?trial=0&trial=1&trial=2",
        f"/trials/{trial}",
        f"/v1/trials/{trial}",
        "/",
        *(f"/v1/sweeps/{sweep}{what}" for what in _OF_A_SWEEP),
    ):
        answer = client.get(path)
        if answer.status_code != 200 or not answer.content:
            broken[path] = f"{answer.status_code} {answer.text[:300]}"
    assert broken == {}


_OF_A_SWEEP = (
    "",
    "/trials",
    "/leaderboard",
    "/leaderboard?format=csv",
    "/front",
    "/recommendation",
    "/report?format=html",
    "/report?format=markdown",
    "/report",
    "/hypervolume",
    "/importance",
    "/columns?name=validation_loss",
    "/tradeoff?x=latency_ms_p50&y=validation_loss",
    "/effect?parameter=num_layers&metric=validation_loss",
)


NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**70), 2**70), st.sampled_from([0, -1, 5, 1e308])
)
TEXTS = st.text(max_size=40) | st.sampled_from(
    ["\x1b]0;x\x07", "\x9b2J", "\u202egnp", "<script>alert(1)</script>", "../../etc", "{{7*7}}"]
)
JSON = st.recursive(
    NUMBERS | TEXTS | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
METRIC_NAMES = st.sampled_from([*METRICS]) | TEXTS
LOSSES = st.fixed_dictionaries(
    {"step": st.integers(-1, 2**31)},
    optional=dict.fromkeys(("training_loss", "validation_loss", "learning_rate", "tokens", "seconds"), NUMBERS),
)
SAYINGS = st.one_of(
    st.tuples(
        st.just(":report"),
        st.fixed_dictionaries(
            {},
            optional={
                "phase": st.sampled_from(PHASES) | TEXTS,
                "progress": st.dictionaries(TEXTS, JSON, max_size=4),
                "losses": st.lists(LOSSES, max_size=4),
                "log": TEXTS,
            },
        ),
    ),
    st.tuples(
        st.just(":offer"), st.fixed_dictionaries({"metrics": st.dictionaries(METRIC_NAMES, NUMBERS, max_size=4)})
    ),
    st.tuples(st.just("/artifacts/"), TEXTS),
)
REGISTRATIONS = st.builds(
    lambda name, model, dtypes, lacks, versions: {
        "name": name,
        "device": {"kind": "cpu", "uuid": name, "model": model, "memory_bytes": 1},
        "versions": versions,
        "targets": [
            {
                "runtime": "onnxruntime",
                "version": model,
                "device_model": model,
                "opset": 23,
                "dtypes": dtypes,
                "device_memory_bytes": 1,
                "lacks": lacks,
            }
        ],
    },
    TEXTS,
    TEXTS,
    st.lists(st.just("float32") | TEXTS, max_size=2),
    st.dictionaries(TEXTS, TEXTS, max_size=2),
    st.dictionaries(TEXTS | st.just("results"), TEXTS, max_size=2),
)
ENDINGS = st.fixed_dictionaries(
    {
        "outcome": st.sampled_from(["complete", "infeasible", "pruned", "failed"]),
        "reason": TEXTS | st.none(),
        "metrics": st.dictionaries(METRIC_NAMES, NUMBERS, max_size=4).map(lambda each: each | {"latency_ms_p50": 1.0}),
        "measurements": st.dictionaries(
            TEXTS | st.sampled_from(["latency_samples_ms", "loss_blocks", "environment", "training"]),
            st.dictionaries(TEXTS | st.just("samples_ms"), JSON, max_size=3),
            max_size=3,
        ),
        "log": TEXTS,
    }
)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    registration=REGISTRATIONS,
    sayings=st.lists(SAYINGS, max_size=5),
    endings=st.lists(ENDINGS, min_size=1, max_size=3),
)
def test_a_worker_that_says_what_it_likes_breaks_nothing(
    client: TestClient,
    served_rows: Rows,
    registration: dict[str, Any],
    sayings: list[tuple[str, Any]],
    endings: list[dict[str, Any]],
) -> None:
    assert client.post("/v1/workers", json=registration).status_code < 500
    attempt = Attempt(client, served_rows)
    for path, said in sayings:
        if path == "/artifacts/":
            digest = base64.b64encode(hashlib.sha256(b"x").digest()).decode()
            url = f"{attempt.path}{path}{quote(said, safe='')}"
            answer = client.put(url, content=b"x", headers={"Content-Digest": f"sha-256=:{digest}:"})
        else:
            answer = client.post(f"{attempt.path}{path}", json=said)
        assert answer.status_code < 500, (path, said, answer.text)
    for ending in [*endings, {"outcome": "failed", "reason": "it ends"}]:
        answer = client.post(f"{attempt.path}:finish", json=ending)
        assert answer.status_code < 500, (ending, answer.text)
    metrics = attempt.shown()["metrics"]
    assert (metrics["parameter_count"], metrics["flops"]) == (1000, 5e6)
    assert all(METRICS[name].possible(value) for name, value in metrics.items())
    assert "test_loss" not in metrics
    for path in (f"/sweeps/{attempt.sweep}", f"/trials/{attempt.trial}", "/", "/workers"):
        page = client.get(path)
        assert page.status_code == 200, (path, page.text)
        assert "<script>alert" not in page.text, path
    for what in _OF_A_SWEEP:
        answer = client.get(f"/v1/sweeps/{attempt.sweep}{what}")
        assert answer.status_code < 500, (what, answer.text)
