"""How sweeps and trials are named, and which values the client takes."""

from __future__ import annotations

import enum
import json
import re
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pandas
import pytest
from typer.testing import CliRunner

from layersweep import Client, InvalidUsageError, NotFoundError, Sweep
from layersweep.cli import app
from layersweep.cli.preferences import Weight, Within, wishes
from layersweep.json_values import plain
from layersweep.names import newest_of_name
from tests.layersweep.answers import page, scripted, sweep_record
from tests.layersweep.finisher import DOCUMENT, Finisher

SHARED = [("smaller", "default"), ("small", "default"), ("small", "default"), ("wide", "vision"), ("wide", "default")]


class Kind(enum.Enum):
    MLP = "MLP"


class Word(enum.StrEnum):
    RUNS = "runs"


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (np.int64(3), 3),
        (np.float64(0.5), 0.5),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.array(3), 3),
        (np.array([16, 32]), [16, 32]),
        (np.array([[1.5]]), [[1.5]]),
        (pandas.Series([1, 2]), [1, 2]),
        ((1, (2, 3)), [1, [2, 3]]),
        (range(3), [0, 1, 2]),
        (Path("a/b.txt"), "a/b.txt"),
        (Kind.MLP, "MLP"),
        (Word.RUNS, "runs"),
        ({"a": {"b": np.int8(1)}, Word.RUNS: None}, {"a": {"b": 1}, "runs": None}),
        ({0: "first"}, {"0": "first"}),
    ],
)
def test_what_measures_like_python_is_written_like_it(given: Any, written: Any) -> None:
    found = plain(given)
    assert found == written
    assert json.loads(json.dumps(found)) == written


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"a": {"b": [1, float("nan")]}}, "/a/b/1 is nan"),
        ({"a": np.float64("inf")}, "/a is inf"),
        ({"a": {1, 2}}, "/a is a set: write"),
        ({"a": object()}, "/a is a object: write"),
        ({(1, 2): 3}, r"the name \(1, 2\)"),
        ({"a": "\ud800"}, "/a is '.ud800', which is no Unicode text"),
    ],
)
def test_what_json_cannot_say_is_refused_with_its_place(given: Any, said: str) -> None:
    with pytest.raises(InvalidUsageError, match=said):
        plain(given)


def test_what_holds_itself_is_refused() -> None:
    given: dict[str, Any] = {}
    given["a"] = given
    with pytest.raises(InvalidUsageError, match="nested too deeply"):
        plain(given)


def test_numpy_goes_wherever_values_go() -> None:
    client, script, _ = scripted(*[httpx2.Response(200, json=sweep_record())] * 3)
    client.submit({"name": "tiny", "model": {"hidden_size": {"values": np.array([16, 32])}}})
    sweep = Sweep(client.transport, sweep_record())
    sweep.confirm(seeds=np.int64(2), trials=np.array([3, 4]), weights={"latency_ms_p50": np.float32(0.25)})
    sweep.extend(trials=np.int64(5))
    bodies = [json.loads(request.content) for request in script.requests]
    assert bodies[0]["model"]["hidden_size"]["values"] == [16, 32]
    assert (bodies[1]["seeds"], bodies[1]["trials"], bodies[1]["weight"]) == (2, [3, 4], ["latency_ms_p50:0.25"])
    assert bodies[2]["trials"] == 5


def test_a_name_that_projects_share_must_be_told_apart() -> None:
    sweeps = [{"id": f"{number}", "name": name, "project": project} for number, (name, project) in enumerate(SHARED)]
    assert newest_of_name(sweeps, "small") == "1"
    assert newest_of_name(sweeps, "none") is None
    with pytest.raises(InvalidUsageError, match="default and vision each have a sweep 'wide': give its id"):
        newest_of_name(sweeps, "wide")


def test_the_newest_sweep_of_a_name_is_meant(client: Client, document: Path) -> None:
    first = client.submit(document)
    second = client.submit(DOCUMENT.replace("name: small", "name: a/b small?"))
    third = client.submit(document)
    assert client.sweep("small").id == third.id
    assert client.sweep(first.id.lower()).id == first.id
    assert client.sweep("a/b small?").id == second.id
    assert client.leaderboard("small").total == len(list(third.trials()))
    with pytest.raises(NotFoundError, match="'smal'"):
        client.sweep("smal")
    client.sweep("small").cancel()
    client.delete_sweep("small")
    assert client.sweep("small").id == first.id
    assert client.clone("small").name == "small"


def test_trials_are_named_by_their_sweep_and_number(client: Client, document: Path, finisher: Finisher) -> None:
    finisher.start()
    sweep = client.submit(document).wait(60)
    record = sweep.trial(2)
    assert (record["sweep"], record["number"]) == (sweep.id, 2)
    assert client.trial("small/2")["id"] == client.trial(f"{sweep.id}/2")["id"] == record["id"]
    assert client.artifacts("small/2") == []
    with pytest.raises(NotFoundError):
        client.trial("small/77")
    with pytest.raises(InvalidUsageError, match="NAME/2"):
        client.trial("2")

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(app, [*arguments], env={"LAYERSWEEP_SERVER": client.server})

    recommended = sweep.recommendation(prefer="latency_ms_p50")["trial"]["number"]
    board = run("leaderboard", "small", "--prefer", "latency_ms_p50").stdout
    assert f"Recommended: trial {recommended}." in board
    assert f"Look closer: layersweep trial show small/{recommended}" in board
    assert run("trial", "show", "small/2").stdout.startswith("Trial 2 of sweep")
    assert run("trial", "show", record["id"]).stdout.startswith("Trial 2 of sweep")
    assert run("trial", "show", "small", "--prefer", "latency_ms_p50").stdout.startswith(f"Trial {recommended} of")
    assert run("trial", "show", sweep.id).stdout.startswith("Trial ")
    for command in (["show", "2"], ["download", "2", "folder"]):
        refused = run("trial", *command)
        assert refused.exit_code == 2
        assert refused.stderr.rstrip().endswith(f"layersweep trial {command[0]} small/2")
    assert (run("trial", "show", "small/77").exit_code, run("trial", "show", "nothing").exit_code) == (1, 1)
    assert run("trial", "show", "small/2", "--prefer", "latency_ms_p50").exit_code == 2
    kept = run("trial", "download", "small/2", "folder")
    assert (kept.exit_code, "has no artifacts" in kept.stderr) == (1, True)


def test_wishes_go_with_every_command(client: Client, document: Path, finisher: Finisher, tmp_path: Path) -> None:
    finisher.start()
    sweep = client.submit(document).wait(60)
    wishes = {"prefer": "validation_loss"}
    number = sweep.recommendation(**wishes)["trial"]["number"]
    assert number != sweep.recommendation(prefer="latency_ms_p50")["trial"]["number"]
    assert json.loads(sweep.report("json", **wishes))["recommendation"]["trial"]["number"] == number
    file = tmp_path / "report.json"
    given = ["report", sweep.id, "--out", str(file), "--prefer", "validation_loss", "--server", client.server]
    assert CliRunner().invoke(app, given).exit_code == 0
    assert json.loads(file.read_text())["recommendation"]["trial"]["number"] == number
    given = ["recommendation", sweep.id, "--prefer", "validation_loss", "--server", client.server]
    ready = f"layersweep report {sweep.id} --prefer validation_loss --server {client.server}"
    assert ready in CliRunner().invoke(app, given).stdout


def test_the_examples_in_the_help_work() -> None:
    said = " ".join(option.__metadata__[0].help for option in (Within, Weight))
    limit, weight = re.findall(r", as ([a-z_]+:[0-9%]+)", said)
    assert wishes([], [limit], [weight]) == {
        "prefer": (),
        "within": {"validation_loss": "1%"},
        "weights": {"validation_loss": 2.0},
    }
    for option, example in (("--within", "validation_loss:1%"), ("--weight", "validation_loss:2")):
        refused = CliRunner().invoke(app, ["recommendation", "x", option, "y", "--server", "http://127.0.0.1:9"])
        assert (refused.exit_code, example in refused.stderr) == (2, True), refused.output


def test_a_wish_that_is_given_twice_is_refused() -> None:
    for command in (["recommendation"], ["leaderboard"], ["confirm"], ["report"], ["trial", "show"]):
        given = [*command, "x", "--weight", "latency_ms_p50:1", "--weight", "latency_ms_p50:2"]
        refused = CliRunner().invoke(app, [*given, "--server", "http://127.0.0.1:9"])
        assert (refused.exit_code, "given twice" in refused.stderr) == (2, True), refused.output


def test_confirmations_are_asked_for_with_the_wishes() -> None:
    client, script, _ = scripted(httpx2.Response(200, json=sweep_record()), page([]))
    sweep = Sweep(client.transport, sweep_record())
    sweep.confirm(prefer="latency_ms_p50", within={"validation_loss": "1%"}, weights={"latency_ms_p50": 1e-7})
    body = json.loads(script.requests[0].content)
    assert (body["prefer"], body["within"], body["weight"]) == (
        ["latency_ms_p50"],
        ["validation_loss:1%"],
        ["latency_ms_p50:1e-07"],
    )
    sweep.confirmations(prefer="latency_ms_p50")
    assert script.requests[1].url.params.get_list("prefer") == ["latency_ms_p50"]


def test_a_dataset_is_deleted_by_its_name(client: Client) -> None:
    for name in ("poem", "prose"):
        client.add_dataset(name, b"to be or not to be, that is the question. " * 200)
    client.delete_dataset("prose")
    deleted = CliRunner().invoke(app, ["dataset", "delete", "poem", "--server", client.server])
    assert (deleted.exit_code, "is deleted" in deleted.stdout) == (0, True)
    assert [each["name"] for each in client.datasets() if not each["builtin"]] == []
    refused = CliRunner().invoke(app, ["dataset", "delete", "poem", "--server", client.server])
    assert refused.exit_code == 1


@pytest.mark.parametrize(("state", "code"), [("completed", 0), ("failed", 1), ("cancelled", 1)])
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_confirmation_that_is_waited_for_ends_with_its_state(
    state: str, code: int, form: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = sweep_record(state=state)
    ended = {"id": record["id"], "state": state, "reason": None, "seeds": [1001], "candidates": [], "says": []}
    answers = [record, ended, record, record, {"items": [ended]}]
    client, _, _ = scripted(*[httpx2.Response(200, json=each) for each in answers])
    monkeypatch.setattr("layersweep.cli.results.connect", lambda server: client)
    result = CliRunner().invoke(app, ["confirm", record["id"], "--wait", *form])
    assert result.exit_code == code, result.output
