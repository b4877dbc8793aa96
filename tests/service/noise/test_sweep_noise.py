"""What a sweep says of the noise of its measurements: over the API, as CSV, and on its page."""

from __future__ import annotations

import csv
import io
import re

import pytest
import sqlalchemy as sa

from service.database.models import Sweep, Trial
from service.noise.sweep_noise import short_name
from service.scheduling.sweep_state import result_of
from tests.service.pages import page
from tests.service.sweep_rows import add_sweep, add_trial, rank

LIMIT = "latency_ms_p99 <= 4.0"
SAYS = (
    "3 of 3 measurements are noisy (CV 35–416 %): p99 cannot be judged on this machine. "
    "Pin cores, stop other load, or constrain p50."
)


@pytest.fixture
def sweep(client, services) -> str:
    def fill(session):
        sweep = add_sweep(session)
        for number, cv in enumerate((0.35, 1.2, 4.16)):
            figures = {"latency_ms_p99": {"low": 1.0, "high": 9.0, "processes": 1, "spread": None, "known": False}}
            metrics = {"latency_ms_p50": 1.0, "latency_ms_p99": 5.0, "latency_cv": cv, "validation_loss": 2.0}
            trial = add_trial(session, sweep, number, metrics, feasible=None)
            trial.noise = {"figures": figures, "undecided": [LIMIT]}
        return sweep.id

    return services.database.write(fill)


def test_a_sweep_says_what_cannot_be_judged_and_what_to_do(client, sweep):
    said = client.get(f"/v1/sweeps/{sweep}").json()["noise"]
    assert said["says"] == SAYS
    assert (said["measured"], said["noisy"], said["not_judged"], said["metrics"]) == (3, 3, 3, ["latency_ms_p99"])
    board = client.get(f"/v1/sweeps/{sweep}/leaderboard").json()
    assert board["noise"] == said
    assert {row["noise"]["judged"] for row in board["items"]} == {"cannot"}
    assert board["items"][0]["noise"]["figures"]["latency_ms_p99"]["high"] == 9.0
    for feasible in (True, False):
        assert not client.get(f"/v1/sweeps/{sweep}/leaderboard", params={"feasible": feasible}).json()["items"]
    undecided = client.get(f"/v1/sweeps/{sweep}/leaderboard", params={"feasible": "undecided"}).json()
    assert len(undecided["items"]) == 3
    assert "feasible=undecided" in page(client, f"/sweeps/{sweep}", feasible="undecided")
    assert client.get(f"/v1/sweeps/{sweep}/leaderboard", params={"feasible": "maybe"}).status_code == 422


def test_on_a_processor_with_several_threads_one_is_advised(client, services, sweep):
    def measure_with_threads(session):
        session.get_one(Sweep, sweep).target_key = "onnxruntime 1.32.0 on CPU 3000, 8 threads"

    services.database.write(measure_with_threads)
    advice = "stop other load, start the worker with --threads 1 and submit the sweep again, or constrain p50."
    assert advice in client.get(f"/v1/sweeps/{sweep}").json()["noise"]["says"]
    judged = sa.update(Trial).where(Trial.sweep_id == sweep).values(feasible=True)
    services.database.write(lambda session: session.execute(judged))
    assert client.get(f"/v1/sweeps/{sweep}").json()["noise"]["says"].endswith("--threads 1 measures more steadily.")


def test_an_export_has_the_intervals_of_what_the_sweep_uses(client, sweep):
    text = client.get(f"/v1/sweeps/{sweep}/leaderboard", params={"format": "csv"}).text
    row = next(csv.DictReader(io.StringIO(text)))
    assert (row["judged"], row["latency_ms_p99_low"], row["latency_ms_p99_high"]) == ("cannot", "1.0", "9.0")
    assert row["latency_ms_p50_low"] == ""


def test_the_page_says_it_above_the_leaderboard_and_marks_the_trials(client, sweep):
    text = page(client, f"/sweeps/{sweep}")
    assert SAYS in text
    assert text.count("> not judged</span>") == 3
    trial = client.get(f"/v1/sweeps/{sweep}/leaderboard").json()["items"][0]["trial"]
    shown = page(client, f"/trials/{trial}")
    assert ">not judged</span>" in shown
    assert re.search(r"1(\.0+)? ms to 9(\.0+)? ms", shown)


def test_a_report_says_it(client, sweep):
    assert SAYS in client.get(f"/v1/sweeps/{sweep}/report", headers={"Accept": "text/markdown"}).text


def test_a_sampler_is_not_told_that_what_cannot_be_judged_breaks_a_limit():
    metrics = {"latency_ms_p50": 2.0}
    told = {
        feasible: result_of(["latency_ms_p50"], "complete", metrics, {LIMIT: 3.0}, feasible).violation
        for feasible in (None, False)
    }
    assert told[None] == 0.0
    assert told[False] > 0


@pytest.mark.parametrize(
    ("name", "spoken"),
    [
        ("latency_ms_p99", "p99"),
        ("prefill_ms_p50@chat", "prefill p50 at chat"),
        ("decode_ms_per_token_p99", "decode p99"),
        ("throughput_per_s", "throughput_per_s"),
    ],
)
def test_figures_are_spoken_of_shortly(name, spoken):
    assert short_name(name) == spoken


def test_a_trial_that_the_front_betters_within_the_noise_is_tied_with_it(client, services):
    def figures(low, high):
        figure = {"low": low, "high": high, "processes": 1, "spread": None, "known": False}
        return {"figures": {"latency_ms_p50": figure}, "undecided": []}

    def fill(session):
        sweep = add_sweep(session)
        latencies = [(1.0, 2.0, 0.9, 1.1), (1.05, 2.0, 0.95, 1.2), (1.5, 2.0, 1.3, 1.7), (1.05, 2.1, 0.95, 1.2)]
        trials = []
        for number, (latency, loss, low, high) in enumerate(latencies):
            trials.append(add_trial(session, sweep, number, {"latency_ms_p50": latency, "validation_loss": loss}))
            trials[-1].noise = figures(low, high)
        rank(session, sweep, trials)
        return sweep.id

    sweep = services.database.write(fill)
    rows = client.get(f"/v1/sweeps/{sweep}/leaderboard").json()["items"]
    assert {row["number"]: row["tied"] for row in rows} == {0: False, 1: True, 2: False, 3: False}
    assert "tied with the front" in page(client, f"/sweeps/{sweep}")
    drawn = client.get(f"/v1/sweeps/{sweep}/tradeoff?x=latency_ms_p50&y=validation_loss").json()
    numbers = dict(zip(drawn["sample"]["trial"], drawn["sample"]["number"], strict=True))
    assert [numbers[trial] for trial in drawn["tied"]] == [1]


@pytest.mark.parametrize(("constraints", "judged"), [([LIMIT], ", yet every constraint could be judged"), ([], "")])
def test_a_sweep_without_constraints_says_nothing_of_them(client, services, constraints, judged):
    def fill(session):
        sweep = add_sweep(session, document={"constraints": constraints})
        add_trial(session, sweep, 0, {"latency_ms_p50": 1.0, "latency_cv": 0.35})
        return sweep.id

    sweep = services.database.write(fill)
    said = client.get(f"/v1/sweeps/{sweep}").json()["noise"]["says"]
    assert said == f"1 of 1 measurement is noisy (CV 35 %){judged}."
