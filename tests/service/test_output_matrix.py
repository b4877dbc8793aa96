"""Every output of a sweep, for each task and each way in which its trials can have ended."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from layersweep.cli.common import EXIT_NONE_FEASIBLE
from service.app import create_app
from service.confirmation import confirmations
from service.database.models import Dataset, Report, Trial
from service.settings import Settings
from tests.golden import command_line, world
from tests.golden.documents import CLASSIFICATION, LANGUAGE, PROBE, SEQUENCES
from tests.golden.world import World
from tests.service.pages import page

FEW_POINTS: dict[str, Any] = LANGUAGE | {
    "model": {"num_layers": {"values": [1, 2, 3]}, "hidden_size": 32, "attention": {"num_attention_heads": 2}},
    "training": {"steps": 10, "batch_size": 4, "learning_rate": 1e-3},
}
TASKS = {"causal_lm": FEW_POINTS, "classification": CLASSIFICATION, "seq2seq": SEQUENCES, "probe": PROBE}
CASES = ("no trial", "all failed", "none feasible", "one", "many", "confirmed")
NAME = "<script>alert(1)</script> [x](javascript:1) `*_|"
MATRIX = [(task, case) for task in TASKS for case in CASES if (task, case) != ("probe", "confirmed")]

HAS_A_RECOMMENDATION = ("one", "many", "confirmed")
ANSWERS = (
    "",
    "/trials",
    "/leaderboard",
    "/leaderboard?format=csv",
    "/leaderboard?format=jsonl",
    "/front",
    "/hypervolume",
    "/importance",
    "/confirmations",
    "/columns?name=latency_ms_p50&name=number",
    "/tradeoff?x=latency_ms_p50&y=parameter_count",
    "/effect?parameter=hidden_size&metric=latency_ms_p50",
    "/report?format=json",
    "/report?format=html",
    "/report?format=markdown",
)
COMMANDS = """
sweep show {sweep}
sweep show {sweep} --json
leaderboard {sweep}
recommendation {sweep}
recommendation {sweep} --json
report {sweep}
report {sweep} --out {files}/report.json
sweep export {sweep} {files}/trials.csv
"""
OPTUNA = "export {sweep} --optuna sqlite:///{files}/study.db --name {sweep}\n"
OF_TRIALS = """
trial show {trial}
trial show {trial} --log
"""


Made = dict[tuple[str, str], str]
"""Task and case -> the sweep that is in it."""


@pytest.fixture(scope="module")
def made() -> Made:
    return {}


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """On SQLite alone: the recorded answers are compared on both databases."""
    folder = tmp_path_factory.mktemp("matrix")
    settings = Settings(
        database_url=f"sqlite:///{folder / 'layersweep.db'}",
        data_dir=folder / "data",
        # No heartbeats come, also where a busy machine takes minutes.
        lease_seconds=3600,
        worker_alive_seconds=3600,
    )
    app = create_app(settings, start_scheduler=False)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield world.begin(client, app.state.services)


def document(task: str, case: str) -> dict[str, Any]:
    trials = {"no trial": 4, "one": 1}.get(case, 3)
    search = {"sampler": "random", "seed": 1, "reuse": False}
    return TASKS[task] | {"name": NAME, "budget": {"trials": trials, "parallel": 1}, "search": search}


def ended(configuration: dict[str, Any], case: str) -> dict[str, Any]:
    """What the worker says of a trial."""
    if case == "all failed":
        return {"outcome": "failed", "reason": "the engine could not be built: </td> `|`\n# made to fail"}
    said = world.outcome_of(
        configuration | {"training": {"seed": 1, "learning_rate": 1e-3} | configuration["training"]}
    )
    if said["outcome"] != "complete":
        said = world.outcome_of(configuration | {"model": {"num_layers": 1, "hidden_size": 32}})
    if case == "none feasible":
        metrics = {name: value for name, value in said["metrics"].items() if "loss" not in name}
        return {"outcome": "infeasible", "metrics": metrics, "reason": "latency_ms_p99 <= 1e-6 is broken"}
    return said


def run(tried: World, made: Made, task: str, case: str) -> str:
    """A sweep of this task that is in this case."""
    if (task, case) not in made:
        made[task, case] = make(tried, task, case)
    return made[task, case]


def make(tried: World, task: str, case: str) -> str:
    sweep = tried.post("/v1/sweeps", json=document(task, case))["id"]
    if case == "no trial":
        return sweep
    tried.step(sweep)
    work(tried, sweep, case)
    if case == "confirmed":
        tried.post(f"/v1/sweeps/{sweep}:confirm", json={"seeds": 2, "candidates": 1})
        work(tried, sweep, case)
        tried.services.database.write(confirmations.end_finished)
    return sweep


def work(tried: World, sweep: str, case: str) -> None:
    while (lease := tried.claim()) is not None:
        path = f"/v1/leases/{lease['trial']}/{lease['attempt']}"
        losses = [{"step": step, "training_loss": 3.0, "validation_loss": 3.1} for step in (0, 10)]
        tried.post(f"{path}:report", json={"phase": "train", "log": "step 1\n", "losses": losses})
        tried.post(f"{path}:finish", json=ended(lease["configuration"], case))
        tried.step(sweep)


@pytest.mark.parametrize(("task", "case"), MATRIX)
def test_every_output_is_whole(tried: World, made: Made, task: str, case: str) -> None:
    sweep = run(tried, made, task, case)
    found = 200 if case in HAS_A_RECOMMENDATION else 404
    answers: dict[str, httpx2.Response] = {}
    for path in (*ANSWERS, "/recommendation"):
        answer = answers[path] = tried.client.get(f"/v1/sweeps/{sweep}{path}")
        expected = found if path == "/recommendation" else 200
        allowed = {200, 422} if path.startswith(("/tradeoff", "/effect", "/columns")) else {expected}
        assert answer.status_code in allowed, f"{path}: {answer.status_code} {answer.text}"
        assert answer.text.strip() or (case == "no trial" and path.endswith("jsonl")), path
    trials = answers["/trials"].json()["items"]
    for path in ("", *(["/compare?trial=0&trial=1"] if len(trials) > 1 else [])):
        assert "<script>alert" not in page(tried.client, f"/sweeps/{sweep}{path}")
    assert "<script>alert" not in answers["/report?format=html"].text
    for trial in trials:
        page(tried.client, f"/trials/{trial['id']}")
        assert tried.client.get(f"/v1/trials/{trial['id']}").status_code == 200
    markdown = answers["/report?format=markdown"].text
    assert markdown.startswith("# \\<script\\>alert(1)\\</script\\> \\[x\\](javascript:1) \\`\\*\\_\\|\n")
    assert markdown.endswith("\n")
    assert not markdown.endswith("\n\n")
    rows = csv.DictReader(io.StringIO(answers["/leaderboard?format=csv"].text))
    assert len(list(rows)) == len(trials)


@pytest.mark.parametrize(("task", "case"), MATRIX)
def test_every_command_says_something(tried: World, made: Made, task: str, case: str, tmp_path: Path) -> None:
    sweep = run(tried, made, task, case)
    trials = tried.client.get(f"/v1/sweeps/{sweep}/trials").json()["items"]
    lines = (COMMANDS.lstrip() + (OPTUNA if case in ("many", "none feasible") else "")).replace("{sweep}", sweep)
    lines += "".join(OF_TRIALS.strip().replace("{trial}", trial["id"]) for trial in trials[:1])
    for said in command_line.told(tried, tmp_path, lines).split("$ layersweep ")[1:]:
        command, *printed = said.strip().splitlines()
        refused = case not in HAS_A_RECOMMENDATION and command.startswith("recommendation")
        assert printed[-1] == f"--- exit code {EXIT_NONE_FEASIBLE if refused else 0}", said
        assert len(printed) > 1, f"{command} says nothing"
    assert json.loads((tmp_path / "report.json").read_text())["title"] == NAME


@pytest.mark.parametrize("loss", [1e308, -1e308, 5e-324])
def test_impossible_losses_of_old_rows_are_shown(tried: World, loss: float) -> None:
    sweep = make(tried, "causal_lm", "many")

    def write(session: Session) -> int:
        trials = session.scalars(sa.select(Trial).where(Trial.sweep_id == sweep).order_by(Trial.number)).all()
        trials[0].metrics = trials[0].metrics | {"validation_loss": loss, "latency_ms_p50": abs(loss)}
        trials[1].metrics = trials[1].metrics | {"validation_loss": -loss, "generalization_gap": loss}
        session.execute(
            sa.update(Report).where(Report.trial_id == trials[0].id).values(values={"validation_loss": loss})
        )
        return len(trials)

    assert tried.services.database.write(write) == 3
    page(tried.client, f"/sweeps/{sweep}")
    page(tried.client, f"/sweeps/{sweep}/compare?trial=0&trial=1")
    for trial in tried.client.get(f"/v1/sweeps/{sweep}/trials").json()["items"]:
        page(tried.client, f"/trials/{trial['id']}")
    for path in (*ANSWERS, "/recommendation"):
        answer = tried.client.get(f"/v1/sweeps/{sweep}{path}")
        assert answer.status_code < 500, f"{path}: {answer.text}"
        assert '="inf' not in answer.text
        assert '="nan' not in answer.text


@pytest.mark.parametrize("content", [b"a" * 3000, b"ab" * 1500, b"a\n" * 1500])
def test_a_text_that_is_always_the_same_has_a_page(tried: World, content: bytes) -> None:
    name = f"same-{content[:2].hex()}"
    form = {"name": name, "task": "causal_lm", "tokenizer": "char"}
    answer = tried.client.post("/v1/datasets", data=form, files={"file": ("same.txt", content)})
    if answer.status_code == 422:
        return  # refused with a reason is an answer too
    assert answer.status_code == 201, answer.text
    for path in (f"/datasets/{name}", "/datasets"):
        assert "-0.0" not in page(tried.client, path)
    assert "-0.0" not in tried.client.get(f"/v1/datasets/{name}").text


def test_a_profile_of_before_has_no_loss_below_zero(tried: World) -> None:
    profile = {"baselines_nats": {"uniform": 0.0, "bigram": -0.0}}

    def write(session: Session) -> int:
        session.execute(sa.update(Dataset).where(Dataset.name == "pairs").values(profile=profile))
        return 1

    tried.services.database.write(write)
    assert "-0.0" not in page(tried.client, "/datasets/pairs")
    assert "-0.0" not in page(tried.client, "/datasets")


@pytest.mark.parametrize("case", [case for case in CASES if case != "confirmed"])
def test_a_probe_speaks_of_nothing_that_is_learnt(tried: World, made: Made, case: str) -> None:
    sweep = run(tried, made, "probe", case)
    found = [page(tried.client, f"/sweeps/{sweep}").partition("<main")[2]]
    for path in ("/recommendation", "/report?format=html", "/report?format=markdown"):
        found.append(tried.client.get(f"/v1/sweeps/{sweep}{path}").text)
    for trial in tried.client.get(f"/v1/sweeps/{sweep}/trials").json()["items"]:
        found.append(page(tried.client, f"/trials/{trial['id']}").partition("<main")[2])
        missing = tried.client.get(f"/v1/trials/{trial['id']}/artifacts/weights.safetensors")
        assert "a probe has random weights and leaves none" in missing.json()["detail"]
    for text in found:
        for word in (
            "test split",
            "validation loss",
            "validation_loss",
            "Losses",
            "before training",
            "overfitting rule",
        ):
            assert word not in text, f"{word}: {text[text.index(word) - 200 : text.index(word) + 100]}"
