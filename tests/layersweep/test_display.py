"""Tables and progress as text."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from layersweep.cli.catalog import listings
from layersweep.display import leaderboards, progress
from layersweep.display.estimates import cost_in_words
from layersweep.display.listings import Listing
from layersweep.records.catalog import QueueEntry
from layersweep.records.sweeps import Budget, CostEstimate
from tests.layersweep.answers import row, sweep_record

OBJECTIVES = [{"metric": "latency_ms_p50", "goal": "minimize"}, {"metric": "accuracy", "goal": "maximize"}]


def text(
    rows: list[dict], width: int, recommended: str | None = None, objectives: list[dict[str, str]] = OBJECTIVES
) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(leaderboards.render(rows, objectives, console, recommended=recommended))
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [80, 200])
def test_the_table_has_varied_parameters_only_and_marks_the_front(width: int) -> None:
    beaten = row(1, rank=2, on_front=False)
    shown = text([row(0), beaten], width, recommended=row(0)["trial"])
    first, second = (line for line in shown.splitlines() if "complete" in line)
    assert "»★" in first
    assert "★" not in second
    assert "kind" not in shown
    assert "32" in shown
    assert "64" in shown
    assert max(map(len, shown.splitlines())) <= width


def test_a_table_says_once_why_trials_failed() -> None:
    failed = {"state": "failed", "rank": None, "on_front": False, "feasible": None, "metrics": {}}
    rows = [row(0), *(row(number, **failed, reason="out of memory\nat length") for number in (1, 2))]
    rows.append(row(3, **failed, reason="it hung"))
    assert text(rows, 100).endswith("Trials 1, 2 failed: out of memory\nTrial 3 failed: it hung\n")
    assert "failed:" not in text([row(0)], 100)


def test_many_parameters_go_below_the_rows_where_the_terminal_is_narrow() -> None:
    rows = [
        row(number, parameters={f"section.parameter_{index}": number * 10 + index for index in range(12)})
        for number in range(2)
    ]
    shown = text(rows, 80)
    assert max(map(len, shown.splitlines())) <= 80
    assert "parameter_11=21" in shown


def test_names_are_as_short_as_they_can_be_told_apart() -> None:
    assert leaderboards.short_names(["num_layers", "mlp.kind", "norm.kind", "mlp.hidden_act"]) == {
        "num_layers": "num_layers",
        "mlp.kind": "mlp.kind",
        "norm.kind": "norm.kind",
        "mlp.hidden_act": "hidden_act",
    }
    assert leaderboards.short_names(["norm.kind", "kind"]) == {"norm.kind": "norm.kind", "kind": "kind"}


def test_one_device_and_several_stand_side_by_side() -> None:
    def trial(number: int, size: int, width: int, latency_ms: float) -> dict:
        metrics = {
            "latency_ms_p50": latency_ms,
            "memory_bytes": 2.0**30 / size,
            "device_ms_per_token": latency_ms * size,
        }
        return row(number, parameters={"hidden_size": width, "tp_size": size}, metrics=metrics)

    rows = [trial(0, 2, 4096, 5.0), trial(1, 1, 4096, 8.0), trial(2, 1, 1024, 1.0), trial(3, 4, 4096, 4.0)]
    shown = [line.split() for line in text(rows, 160).splitlines() if "→" in line]
    assert [line[:3] + line[3:6] for line in shown] == [["1", "→", "0", "1", "→", "2"], ["1", "→", "3", "1", "→", "4"]]
    assert [line[11] for line in shown] == ["1.60", "2.00"]
    assert "One device and several" not in text([rows[0], rows[2]], 160)


def test_a_trial_that_is_not_feasible_or_not_finished_says_so() -> None:
    rows = [
        row(0, feasible=False, rank=None, on_front=False),
        row(1, state="failed", metrics={}, rank=None, on_front=False),
        row(2, reused_from="x"),
    ]
    shown = text(rows, 120)
    for word in ("not feasible", "failed", "complete, reused"):
        assert word in shown


def test_the_tally_counts_what_ended_and_what_goes_on() -> None:
    counts = sweep_record()["progress"] | {"complete": 2, "infeasible": 1, "running": 1, "rejected": 5, "reused": 1}
    assert progress.tally(counts) == (
        "3 of 4 trials ended: 2 complete, 1 infeasible (1 reused); 1 running; 5 points rejected"
    )


def test_the_live_view_names_phases_and_the_best_so_far() -> None:
    best = {"validation_loss": {"trial": "x", "number": 3, "value": 1.75}}
    running = {"number": 4, "phase": "train", "progress": {"step": 120, "steps": 300}, "attempt": 2}
    waiting = {"number": 5, "phase": "measure", "progress": {"waiting_for": "its turn on this device"}, "attempt": 1}
    console = Console(file=io.StringIO(), width=80)
    console.print(progress.view(sweep_record(best=best), [running, waiting], 12.0))  # type: ignore[list-item]
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "trial 4: train, step 120 of 300 (attempt 2)" in shown
    assert "trial 5: measure, waiting for its turn on this device\n" in shown
    assert "val. loss 1.750 nats (trial 3)" in shown


def test_what_a_leaderboard_is_sorted_by_has_a_column() -> None:
    rows = [row(number, metrics={"validation_loss": 1.0, "latency_cv": number / 8}) for number in range(2)]
    console = Console(file=io.StringIO(), width=120)
    objectives = [{"metric": "validation_loss", "goal": "minimize"}]
    console.print(leaderboards.render(rows, objectives, console, sort="-latency_cv"))  # type: ignore[arg-type]
    assert "latency cv" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_narrow_table_drops_what_a_summary_names_last() -> None:
    metrics = {"validation_loss": 1.5, "decode_ms_per_token_p50": 0.25, "memory_bytes": 1e6, "latency_ms_p50": 9.0}
    rows = [row(number, metrics={**metrics, "latency_cv": 0.01}) for number in range(2)]
    objectives = [{"metric": "validation_loss", "goal": "minimize"}]

    def head(width: int, columns: tuple[str, ...] = ()) -> list[str]:
        console = Console(file=io.StringIO(), width=width)
        summary = ["validation_loss", "decode_ms_per_token_p50", "prefill_ms_p50", "memory_bytes"]
        console.print(leaderboards.render(rows, objectives, console, summary=summary, columns=columns))  # type: ignore[arg-type]
        lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
        return next(line for line in lines if "rank" in line).split()[2:]

    assert head(200)[:7] == ["val.", "loss", "decode", "per", "token", "p50", "memory"], "prefill was not measured"
    assert head(60) == ["val.", "loss", "decode", "per", "token", "p50", "state"]
    assert head(200, ("latency_cv", "hidden_size"))[:2] == ["latency", "cv"]
    assert "loss" not in head(200, ("latency_cv", "hidden_size"))


def test_a_log_says_what_a_trial_waits_for_and_now_and_then_what_runs() -> None:
    now = 0.0
    trial: dict = {"number": 0, "phase": "measure", "attempt": 1, "progress": None}
    console = Console(file=io.StringIO(), width=80)
    lines = progress.Lines(console, lambda: [trial], lambda: now)  # type: ignore[arg-type, list-item]

    def printed(at: float) -> str:
        nonlocal now
        now = at
        before = console.file.tell()
        lines.show(sweep_record())  # type: ignore[arg-type]
        return console.file.getvalue()[before:]  # type: ignore[attr-defined]

    assert "trials ended" in printed(0)
    assert printed(5) == ""
    assert printed(11).endswith("trial 0: measure\n"), "soon after the first line"
    assert printed(30) == "", "what runs and does not wait is no news"
    trial["progress"] = {"waiting_for": "its turn to measure on this device, which another worker (process 7) has"}
    assert printed(45).endswith(f"trial 0: measure, waiting for {trial['progress']['waiting_for']}\n")
    assert [printed(at) for at in (56, 90)] == ["", ""]
    assert "waiting for its turn" in printed(106), "once a minute it is said again"


def test_a_watch_that_is_attached_later_says_the_age_of_the_sweep() -> None:
    made, ended = "2026-01-01T00:00:00.000Z", "2026-01-01T00:02:00.000Z"
    record = sweep_record(state="completed", created_at=made, ended_at=ended)
    assert progress.age_seconds(record) == 120  # type: ignore[arg-type]
    console = Console(file=io.StringIO(), width=80)
    progress.Lines(console, list).show(record)  # type: ignore[arg-type]
    assert "2 min]" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_clock_that_is_behind_hides_no_reason() -> None:
    record = sweep_record(reason="waiting for a worker", created_at="2999-01-01T00:00:00.000Z")
    assert progress.reason_of(record) == "waiting for a worker"  # type: ignore[arg-type]


def listed(width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    listing = Listing("id", "name", "runs on", "seen", whole=("id",), spare=("seen", "runs on"))
    listing.add_row("01K8ZQJ6V2T5W9X3Y7B1C4D6E8", "english-longer", "AMD EPYC 9B14, 2 threads", "3 min ago")
    listing.add_row("01K8ZQJ6V2T5W9X3Y7B1C4D6E9", "a name of some words that is long", "Test CPU", "2 d ago")
    console.print(listing)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_narrow_listing_breaks_no_word_and_leaves_out_what_matters_least() -> None:
    assert "2 d ago" in listed(120)
    narrow = listed(80)
    assert max(map(len, narrow.splitlines())) <= 80
    for word in ("01K8ZQJ6V2T5W9X3Y7B1C4D6E8", "english-longer"):
        assert word in narrow
    assert "EPYC" not in narrow
    assert "2 d ago" in narrow, "what is small has room when what is large is left out"
    assert "In a wider terminal, and in --json: runs on" in narrow
    narrower = listed(50)
    assert max(map(len, narrower.splitlines())) <= 50
    assert "english-longer" in narrower


def queued(width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    entry = dict.fromkeys(QueueEntry.__annotations__) | {
        "runtime": "onnxruntime",
        "version": "1.23.0",
        "device_model": "AMD EPYC 9B14 96-Core Processor, 2 threads",
        "labels": {"site": "amsterdam"},
        "project": "red",
        "priority": -3,
        "queued": 12,
        "running": 1,
        "oldest_seconds": 7200.0,
        "busy_slots": 1,
        "slots": 2,
        "waits_for": "1 trial at once is the quota of the project red, and as many run",
    }
    console.print(listings.queue_table([entry]))  # type: ignore[list-item]
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_queue_wraps_what_trials_need_before_it_leaves_out_whose_they_are() -> None:
    wide = queued(120)
    assert max(map(len, wide.splitlines())) <= 120
    assert "In a wider terminal" not in wide
    assert all(word in wide for word in ("project", "red", "priority", "-3", "oldest", "slots"))
    narrow = queued(80)
    assert max(map(len, narrow.splitlines())) <= 80
    assert "In a wider terminal, and in --json: priority, oldest, slots" in narrow


def test_metrics_that_are_no_objectives_make_room_in_a_narrow_terminal() -> None:
    names = ("latency_ms_p50", "memory_bytes", "validation_loss", "accuracy", "parameter_count", "build_seconds")
    rows = [row(number, metrics=dict.fromkeys(names, 12345.678 * (number + 1))) for number in range(2)]
    objectives = [{"metric": "build_seconds", "goal": "minimize"}, {"metric": "latency_ms_p50", "goal": "minimize"}]
    shown = text(rows, 80, objectives=objectives)
    assert max(map(len, shown.splitlines())) <= 80
    assert "latency p50" in shown
    assert "params" not in shown


@pytest.mark.parametrize(
    ("wall_seconds", "said"), [(30.0, "1 at a time. "), (90.0, "1 at a time on 33% of a device, ")]
)
def test_an_estimate_says_which_part_of_a_device_others_leave(wall_seconds: float, said: str) -> None:
    estimate: CostEstimate = {
        "trial_seconds": 10.0,
        "device_seconds": 30.0,
        "wall_seconds": wall_seconds,
        "parallel": 1,
        "from_trials": 4,
        "from_points": 60,
        "target": "onnxruntime",
        "median_error_share": 0.1,
    }
    budget: Budget = {"trials": 3, "parallel": "auto", "failures": 1, "wall_seconds": None, "device_seconds": None}
    assert said in cost_in_words(estimate, budget)
