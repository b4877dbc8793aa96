"""The command line: what scripts read from it, what people read from it, and how it says no."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import typer
import yaml
from typer.core import TyperGroup
from typer.testing import CliRunner, Result

from layersweep import Client, NoFeasibleTrialError, NotFoundError, ResponseError
from layersweep.cli import app, demo, processes
from layersweep.cli.common import ask_before_deleting, exit_code, out
from layersweep.display.spaces import print_space
from layersweep.display.terminal import LOG_WIDTH
from layersweep.leaderboard import Leaderboard
from layersweep.records.sweeps import SpaceFacts
from tests.layersweep.answers import row
from tests.layersweep.finisher import DOCUMENT, Finisher

Run = Callable[..., Result]


@pytest.fixture
def alone() -> Run:
    """Runs a command with no service named."""
    return lambda *arguments: CliRunner().invoke(app, [str(each) for each in arguments])


@pytest.fixture
def run(live_service: str) -> Run:
    """Runs a command against the running service."""

    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(each) for each in arguments], env={"LAYERSWEEP_SERVER": live_service})

    return invoke


def answer(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_sweep_from_submission_to_the_leaderboard(run: Run, document: Path, finisher: Finisher) -> None:
    finisher.start()
    sweep = answer(run("sweep", "submit", document, "--json"))["id"]
    watched = run("sweep", "watch", sweep, "--timeout", 60)
    assert watched.exit_code == 0, watched.output
    assert "6 of 6 trials ended: 6 complete" in watched.stdout
    assert "\x1b" not in watched.stdout

    listed = answer(run("sweep", "list", "--json"))
    assert [item["id"] for item in listed["items"]] == [sweep]
    assert listed["next_page_token"] is None
    assert answer(run("sweep", "show", "small", "--json"))["state"] == "completed"
    assert "completed" in run("sweep", "show", sweep).stdout

    assert sweep in run("sweep", "list", "--state", "completed", "--name", "sma", "--sort", "name").stdout
    assert run("sweep", "list", "--state", "failed").stdout.strip() == "No sweep keeps these filters."

    board = answer(run("leaderboard", sweep, "--json"))
    assert len(board["items"]) == board["total"] == 6
    narrow = answer(
        run("leaderboard", sweep, "--where", "hidden_size=32", "--feasible", "--state", "complete", "--json")
    )
    numbers = [row["number"] for row in board["items"] if row["parameters"]["hidden_size"] == 32 and row["feasible"]]
    assert [row["number"] for row in narrow["items"]] == numbers
    assert 0 < narrow["total"] < 6
    front = run("leaderboard", sweep, "--front", "--csv").stdout
    assert len(front.splitlines()) - 1 == sum(row["on_front"] for row in board["items"])
    assert run("leaderboard", sweep, "--where", "hidden_size>64").stdout.strip() == "No trial keeps these filters."
    wrong = run("leaderboard", sweep, "--where", "hidden_size")
    assert (wrong.exit_code, "is not a condition" in " ".join(wrong.stderr.split())) == (2, True)
    assert set(board["items"][0]) >= {"trial", "rank", "on_front", "parameters", "metrics", "state"}
    rows = list(csv.DictReader(io.StringIO(run("leaderboard", sweep, "--csv").stdout)))
    assert len(rows) == 6
    fastest = answer(run("leaderboard", sweep, "--sort", "latency_ms_p50", "--json"))["items"][0]
    assert fastest["metrics"]["latency_ms_p50"] == min(each["metrics"]["latency_ms_p50"] for each in board["items"])

    table = run("leaderboard", "small").stdout
    assert "★" in table
    assert "»" in table
    assert "Recommended: trial" in table
    assert max(map(len, table.splitlines())) <= LOG_WIDTH
    chosen = run("leaderboard", "small", "--columns", "hidden_size, memory_bytes").stdout
    assert ("memory" in chosen, "latency p50" in chosen, "hidden_" in chosen) == (True, False, True)
    wrong = run("leaderboard", sweep, "--columns", "memory_bytes,nothing")
    assert (wrong.exit_code, "'nothing'" in wrong.stderr) == (2, True)

    trial = board["items"][0]["trial"]
    assert answer(run("trial", "show", trial, "--json"))["id"] == trial
    assert "hidden_size:" in run("trial", "show", trial).stdout
    refused = run("trial", "promote", trial)
    assert refused.exit_code != 0
    assert "only one that a pruner has stopped can be promoted" in " ".join(refused.output.split())


def test_a_wrong_document_is_a_list_of_places_and_remedies(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(DOCUMENT.replace("[16, 32]", "[]").replace("sampler: random", "sampler: oracle"))
    for command in ("submit", "validate"):
        refused = run("sweep", command, path)
        assert refused.exit_code == 2
        assert refused.stdout == ""
        assert "/model/hidden_size" in refused.stderr
        assert "/search/sampler" in refused.stderr
        assert refused.stderr.count("try:") >= 2
        assert "Traceback" not in refused.output
    assert answer(run("sweep", "list", "--json"))["items"] == []


def test_validating_tells_about_the_space(run: Run, document: Path) -> None:
    told = run("sweep", "validate", document)
    assert told.exit_code == 0
    assert "8 points" in told.stdout
    assert answer(run("sweep", "validate", document, "--json"))["space"]["points"] == 8


def test_what_a_document_s_author_may_not_expect_is_noted_when_it_is_submitted(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "again.yaml"
    path.write_text(DOCUMENT.replace("seed: 3}", "seed: 3, replicates: 2}"))
    for command in ("validate", "submit"):
        said = " ".join(run("sweep", command, path).stdout.split())
        assert "Note on /search/replicates: nothing is trained again: 15% of a budget of 6 trials" in said


def completed(words: str, **environment: str) -> list[str]:
    """What Tab offers in bash at the end of a line."""
    variables = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    done = CliRunner().invoke(app, env={"_LAYERSWEEP_COMPLETE": "complete_bash", **variables, **environment})
    assert (done.exit_code, done.stderr) == (0, "")
    return done.stdout.split()


def test_tab_completes_commands_states_and_the_names_of_sweeps(client: Client, live_service: str) -> None:
    tiny = yaml.safe_load(DOCUMENT)
    for name in ("small", "small", "smaller", "other", "small; ls", "small$(ls)"):
        client.submit(tiny | {"name": name})
    assert completed("layersweep leaderb") == ["leaderboard"]
    assert completed("layersweep leaderboard x --state comp") == ["complete"]
    here = {"LAYERSWEEP_SERVER": live_service}
    assert completed("layersweep leaderboard sm", **here) == ["smaller", "small"]
    assert completed("layersweep sweep show ", **here) == ["other", "smaller", "small"]
    assert completed(f"layersweep sweep show --server {live_service} ot") == ["other"]


def test_tab_offers_no_sweeps_where_no_service_answers() -> None:
    assert completed("layersweep leaderboard sm", LAYERSWEEP_SERVER="http://127.0.0.1:9") == []


def test_steering(run: Run, document: Path) -> None:
    sweep = answer(run("sweep", "submit", document, "--json"))["id"]
    assert answer(run("sweep", "pause", sweep, "--json"))["state"] == "paused"
    assert answer(run("sweep", "resume", sweep, "--json"))["state"] == "active"
    assert answer(run("sweep", "extend", sweep, "--trials", 3, "--json"))["budget"]["trials"] == 9
    assert run("sweep", "extend", sweep).exit_code == 2
    assert "is cancelled" in run("sweep", "cancel", sweep).stdout
    assert run("sweep", "watch", sweep).exit_code == 1
    refused = run("sweep", "pause", sweep)
    assert refused.exit_code == 1
    assert refused.stderr.startswith("error: ")
    assert "No trials yet" in run("leaderboard", sweep).stdout


@pytest.mark.parametrize(("typed", "is_deleted"), [("n\n", False), ("\n", False), ("y\n", True)])
def test_whoever_deletes_by_hand_is_asked_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], typed: str, is_deleted: bool
) -> None:
    class Typing(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Typing(typed))
    ask_before_deleting("the sweep a", yes=True)
    with contextlib.nullcontext() if is_deleted else pytest.raises(typer.Abort):
        ask_before_deleting("the sweep a", yes=False)
    assert "Delete the sweep a? This cannot be undone." in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    ask_before_deleting("the sweep a", yes=False)


def every_command(group: TyperGroup, *path: str) -> list[list[str]]:
    """The words that call each command and each group of them."""
    found: list[list[str]] = [list(path)]
    for name, command in group.commands.items():
        deeper = every_command(command, *path, name) if isinstance(command, TyperGroup) else [[*path, name]]
        found += deeper
    return found


def test_no_help_cuts_a_name_in_a_terminal_of_80_columns(alone: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for words in every_command(cast("TyperGroup", typer.main.get_command(app))):
        said = alone(*words, "--help").stdout
        assert max(map(len, said.splitlines())) <= 80, words
        assert not re.search(r"\w\.\.\.|\w…", said), words
    assert "LAYERSWEEP_ENGINE_PYTHON]" in alone("worker", "--help").stdout


def test_a_sweep_without_a_feasible_trial_has_an_exit_code_of_its_own(
    run: Run, document: Path, finisher: Finisher, client: Client
) -> None:
    document.write_text(DOCUMENT + 'constraints: ["latency_ms_p50 <= 0.001"]\n')
    assert run("sweep", "submit", document, "--timeout", 1).exit_code == 2
    waiting = run("sweep", "submit", document, "--wait", "--timeout", 1)
    assert (waiting.exit_code, "no worker is alive" in " ".join(waiting.stderr.split())) == (9, True), waiting.output
    assert "within 1 s:" in waiting.stderr
    assert "It goes on" in waiting.stderr
    finisher.start()
    watched = run("sweep", "watch", "small", "--timeout", 60)
    assert watched.exit_code == 7, watched.output
    assert "(none_feasible)" in watched.stdout
    assert "budget_exhausted" not in watched.stdout
    assert run("recommendation", "small").exit_code == 7
    assert run("sweep", "assert", "small", "--metric", "memory_bytes <= 1").exit_code == 7
    with pytest.raises(NoFeasibleTrialError) as none:
        client.sweep("small").recommendation()
    assert (none.value.type, isinstance(none.value, NotFoundError)) == ("no-feasible-trial", True)
    assert ". For 1 feasible trial allow" in str(none.value), "sentences"


@pytest.mark.parametrize(
    ("status", "document", "code"),
    [
        (401, {"type": "urn:layersweep:problem:unauthorized", "detail": "x"}, 8),
        (403, {"type": "urn:layersweep:problem:forbidden", "detail": "x"}, 8),
        (404, {"type": "urn:layersweep:problem:not-found", "detail": "x"}, 1),
        (404, {"type": "urn:layersweep:problem:no-feasible-trial", "detail": "x"}, 7),
        (409, {"type": "urn:layersweep:problem:conflict", "detail": "x"}, 1),
        (422, {"type": "urn:layersweep:problem:invalid-document", "detail": "x"}, 2),
        (500, {"type": "urn:layersweep:problem:internal", "detail": "x"}, 3),
    ],
)
def test_each_refusal_has_its_exit_code(status: int, document: dict[str, str], code: int) -> None:
    assert exit_code(ResponseError.of(status, document)) == code


def test_whoever_adds_a_dataset_reads_its_notes(run: Run, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"\x89PNG\0" * 400)
    added = run("dataset", "add", "--name", "picture", "--file", picture)
    assert "note: the file holds NUL bytes" in added.stdout, added.output


def test_the_catalogue(run: Run, tmp_path: Path) -> None:
    text = tmp_path / "poem.txt"
    text.write_text("to be or not to be, that is the question. " * 200)
    added = answer(run("dataset", "add", "--name", "poem", "--file", text, "--tokenizer", "char", "--json"))
    assert added["name"] == "poem"
    assert {item["name"] for item in answer(run("dataset", "list", "--json"))["items"]} == {
        "python-topics",
        "digits",
        "poem",
    }
    assert answer(run("dataset", "show", "poem", "--json"))["tokenizer"] == "char"
    assert "baselines_nats" in run("dataset", "show", "poem").stdout
    sections = answer(run("layers", "GatedMLP", "--json"))["items"]
    assert [section["section"] for section in sections] == ["mlp"]
    named = answer(run("layers", "mlp", "--json"))["items"]
    assert [section["section"] for section in named] == ["mlp"], "not model, which a probe's mlp has too"
    assert "mlp.hidden_act" in run("layers", "mlp").stdout
    printed = " ".join(run("layers", "mlp").stdout.split())
    assert "onnxruntime: another than dtype no: it runs float32 alone; tf32 no: a format" in printed
    assert "may differ from layer to layer" in printed
    unknown = run("layers", "Telepathy")
    assert unknown.exit_code == 2
    assert "GatedMLP" in unknown.stderr
    assert any(item["name"] == "gpt2-small" for item in answer(run("presets", "--json"))["items"])
    table = run("presets").stdout
    assert all(word in table for word in ("t5-small", "seq2seq", "30/9(3)/576", "arXiv 1910.10683"))
    assert "attention_mask_type: padding" in run("presets", "bert-tiny").stdout
    unknown = run("presets", "bert-huge")
    assert unknown.exit_code == 2
    assert "there are: nanogpt-char" in unknown.stderr
    assert answer(run("workers", "--json")) == {"items": [], "next_page_token": None}
    assert answer(run("queue", "--json")) == {"items": [], "next_page_token": None}


@pytest.mark.parametrize(
    "command",
    [("sweep", "show", "nothing"), ("leaderboard", "nothing"), ("trial", "show", "0" * 26), ("dataset", "show", "x")],
)
def test_what_is_not_there_is_a_sentence(run: Run, command: tuple[str, ...]) -> None:
    result = run(*command)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.output


def test_no_service_is_a_sentence_that_says_how_to_start_one(alone: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layersweep.cli.common.RETRY_SECONDS", 0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    result = alone("sweep", "list", "--server", f"http://127.0.0.1:{port}")
    assert result.exit_code == 3
    assert "layersweep serve" in result.stderr


def test_a_missing_file_and_a_server_that_is_no_url(alone: Run, tmp_path: Path) -> None:
    missing = alone("sweep", "submit", tmp_path / "missing.yaml", "--server", "http://127.0.0.1:1")
    assert (missing.exit_code, "missing.yaml cannot be read" in missing.stderr) == (2, True)
    assert alone("sweep", "list", "--server", "localhost").exit_code == 2


@pytest.mark.parametrize(
    ("host", "opened"),
    [
        ("0.0.0.0", "http://127.0.0.1:"),
        ("127.0.0.1", "http://127.0.0.1:"),
        ("::", "http://[::1]:"),
    ],
)
def test_the_address_that_is_printed_opens_in_a_browser(host: str, opened: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        assert processes.address_of(listener, host) == f"{opened}{listener.getsockname()[1]}"


def test_serving_on_a_port_in_use_is_told(alone: Run, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = alone("serve", "--port", port, "--data-dir", tmp_path)
    assert result.exit_code == 2
    assert f"port {port} on 127.0.0.1 is in use" in result.stderr
    assert "--port" in result.stderr


def test_serving_other_machines_needs_a_token(alone: Run, tmp_path: Path) -> None:
    result = alone("serve", "--host", "0.0.0.0", "--data-dir", tmp_path)
    assert result.exit_code == 2
    assert "layersweep token create" in result.stderr


@pytest.mark.parametrize(
    ("name", "value"), [("LAYERSWEEP_LEASE_SECONDS", "soon"), ("LAYERSWEEP_DATABASE_URL", "mysql://nowhere/x")]
)
def test_a_setting_that_is_not_usable_is_named(
    alone: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    result = alone("serve", "--port", 0, "--data-dir", tmp_path)
    assert result.exit_code == 2
    assert name in result.stderr


def test_the_database_is_upgraded_once(alone: Run, tmp_path: Path) -> None:
    assert "up to date now" in alone("db", "upgrade", "--data-dir", tmp_path).stderr
    assert "already" in alone("db", "upgrade", "--data-dir", tmp_path).stderr
    assert "There is nothing to delete" in alone("db", "prune", "--dry-run", "--data-dir", tmp_path).stderr
    pruned = alone("db", "prune", "--data-dir", tmp_path)
    assert "broken-off uploads" in pruned.stdout


def test_an_older_postgresql_schema_is_refused_with_the_remedy(
    alone: Run, monkeypatch: pytest.MonkeyPatch, postgres_url: str, tmp_path: Path
) -> None:
    from service.database.sessions import Database

    database = Database(postgres_url)
    database.downgrade("base")
    database.close()
    monkeypatch.setenv("LAYERSWEEP_DATABASE_URL", postgres_url)
    refused = alone("serve", "--port", 0, "--data-dir", tmp_path)
    assert refused.exit_code == 1
    assert "layersweep db upgrade" in refused.stderr
    assert alone("db", "upgrade").exit_code == 0


def test_a_part_that_is_not_installed_is_told_with_the_remedy() -> None:
    with pytest.raises(Exception, match=r"not installed.*make setup"):
        processes.part_of_product("not_there_at_all.module", "worker")


def test_the_demo_takes_the_next_free_port() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert port < demo.free_port(port) < port + demo.PORTS_TRIED


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        ({"points": 1, "open_parameters": []}, "Space: one point, as nothing is open; 40.0% keep the rules."),
        ({"points": 1, "open_parameters": ["a"]}, "Space: 1 point over a; 40.0% keep the rules."),
        ({"points": 1200, "open_parameters": ["a", "b"]}, "Space: 1,200 points over a, b; 40.0% keep the rules."),
        (
            {
                "points": None,
                "open_parameters": ["a"],
                "sampled": True,
                "judged": 1500,
                "feasible_interval": [0.375, 0.425],
            },
            "Space: continuous, or too large to count, over a; 40.0% keep the rules"
            " (of 1,500 samples: 37.5% to 42.5% with 95% confidence).",
        ),
        (
            {
                "points": None,
                "open_parameters": ["a"],
                "sampled": True,
                "judged": 10000,
                "feasible_share": 1.0,
                "feasible_interval": [0.99962, 1.0],
            },
            "Space: continuous, or too large to count, over a; 100.0% keep the rules"
            " (of 10,000 samples: 99.96% to 100.0% with 95% confidence).",
        ),
        # As a service of an earlier version says it.
        (
            {"points": None, "open_parameters": ["a"], "sampled": True},
            "Space: continuous, or too large to count, over a; 40.0% keep the rules (of a sample).",
        ),
    ],
)
def test_a_space_is_told_with_what_its_share_rests_on(
    facts: dict[str, Any], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_space(out, cast("SpaceFacts", {"feasible_share": 0.4, "sampled": False, "rejections": {}, **facts}))
    assert " ".join(capsys.readouterr().out.split()) == line


@pytest.mark.parametrize(
    "wrong", ["backup there.tar.gz", "backup none/a.tar.gz", "restore none.tar.gz", "restore there.tar.gz"]
)
def test_a_backup_s_file_that_cannot_be_used_is_a_wrong_call(
    alone: Run, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.tar.gz").write_text("no archive")
    assert alone("db", *wrong.split(), "--data-dir", "empty").exit_code == 2


def test_the_demo_ends_with_the_recommended_trial_however_many_are_on_the_front(
    capsys: pytest.CaptureFixture[str],
) -> None:
    front = [row(number) for number in range(demo.MOST_ROWS)]
    chosen = row(40)

    class Swept:
        """Has a front whose recommended trial comes last."""

        name = "quickstart"

        def leaderboard(self, *, on_front: bool | None, limit: int) -> Leaderboard:
            return Leaderboard(front[:limit], [], total=41)  # type: ignore[arg-type]

    demo._show_leaderboard(Swept(), {"trial": chosen})  # type: ignore[arg-type]
    shown = capsys.readouterr().out
    assert "»" in shown
    assert " 40 " in shown
